/* Records what a process does to the files of one folder: loaded with LD_PRELOAD.

   Each call that changes a file, a name or a size, or syncs one, is written to a log twice: when it
   begins, with all it says, and when it has ended, with what it returned. `recorder_start` says
   which folder and which log (a descriptor), in a process or in a child it forked; before that, and
   for other files, calls go through unseen. `recorder_mark` puts a number of the caller's between
   them. The layout of the log is `EVENT` in recording.py.

   A file is known by the path it has when the call is made, from /proc/self/fd. Writes through
   shared memory are not seen; whoever replays the log compares the outcome with the real files. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, TRUNCATE, SYNC, CREATE, RENAME, UNLINK, MAKE_FOLDER, REMOVE_FOLDER, LINK, MAP,
       END = 100, MARK = 101 };
enum { SYNCED = 1 };  /* the call is durable when it returns */

struct event {
    uint64_t number;  /* of the call: its beginning and its end have the same */
    uint32_t kind, flags;
    int64_t offset;   /* of a write; the size of a truncation; what an END returned */
    uint32_t path, other, data;  /* bytes of each that follow */
    uint32_t reserved;
};

static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static uint64_t calls;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void put(uint64_t number, uint32_t kind, uint32_t flags, int64_t offset, const char *path,
                const char *other, const struct iovec *data, int parts)
{
    struct event event = {number, kind, flags, offset, 0, 0, 0, 0};
    struct iovec out[64];
    int n = 3;
    event.path = path ? (uint32_t)strlen(path) : 0;
    event.other = other ? (uint32_t)strlen(other) : 0;
    out[0] = (struct iovec){&event, sizeof event};
    out[1] = (struct iovec){(void *)path, event.path};
    out[2] = (struct iovec){(void *)other, event.other};
    size_t whole = sizeof event + event.path + event.other;
    char *copy = NULL;
    if (parts > 0) {
        size_t bytes = 0;
        for (int i = 0; i < parts; i++) bytes += data[i].iov_len;
        event.data = (uint32_t)bytes;
        whole += bytes;
        if (parts > 32) {
            copy = malloc(bytes + 1);
            if (!copy) abort();
            size_t at = 0;
            for (int i = 0; i < parts; i++) {
                memcpy(copy + at, data[i].iov_base, data[i].iov_len);
                at += data[i].iov_len;
            }
            out[n++] = (struct iovec){copy, bytes};
        } else {
            for (int i = 0; i < parts; i++) out[n++] = data[i];
        }
    }
    pthread_mutex_lock(&turn);
    long written = syscall(SYS_writev, log_file, out, n);
    pthread_mutex_unlock(&turn);
    free(copy);
    if (written != (long)whole) {  /* a log with gaps is worth nothing */
        static const char text[] = "recorder: the log cannot be written\n";
        syscall(SYS_write, 2, text, sizeof text - 1);
        abort();
    }
}

static int inside(const char *path)
{
    return strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == 0);
}

/* The path behind a descriptor, if it lies in the folder. */
static int path_of(int file, char *path)
{
    char link[40];
    if (log_file < 0 || file == log_file) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* The whole path of a name in a folder's descriptor, if it lies in the folder. */
static int whole_path(int folder, const char *name, char *path)
{
    char base[PATH_MAX];
    if (log_file < 0 || !name) return 0;
    if (name[0] == '/') {
        if (strlen(name) >= PATH_MAX) return 0;
        strcpy(path, name);
    } else {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[40];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length <= 0) return 0;
            base[length] = 0;
        }
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    }
    return inside(path);
}

static uint64_t begin(uint32_t kind, uint32_t flags, int64_t offset, const char *path,
                      const char *other, const struct iovec *data, int parts)
{
    uint64_t number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    put(number, kind, flags, offset, path, other, data, parts);
    return number;
}

static void end(uint64_t number, int64_t result)
{
    int kept = errno;
    put(number, END, 0, result, NULL, NULL, NULL, 0);
    errno = kept;
}

void recorder_start(const char *folder, int log)
{
    if (!folder) { log_file = -1; return; }
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    calls = 0;
    log_file = log;
}

void recorder_mark(int64_t number)
{
    if (log_file >= 0) put(0, MARK, 0, number, NULL, NULL, NULL, 0);
}

#define REAL(result, name, ...)                                              \
    static result (*real)(__VA_ARGS__);                                      \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* ------------------------------------------------------------------------------------- writes */

static uint32_t sync_flag(int file)
{
    int flags = fcntl(file, F_GETFL);
    return flags >= 0 && (flags & (O_SYNC | O_DSYNC)) ? SYNCED : 0;
}

static int64_t position(int file)
{
    int flags = fcntl(file, F_GETFL);
    return lseek(file, 0, flags >= 0 && (flags & O_APPEND) ? SEEK_END : SEEK_CUR);
}

/* A write that is cut short ends with what it returned; the reader of the log sees to it. */
#define RECORDED(file, at, data, parts, call)                                        \
    char path[PATH_MAX];                                                             \
    if (!path_of(file, path)) return call;                                           \
    int64_t offset = at;                                                             \
    if (offset == -2) {                                                                  \
        int64_t here = lseek(file, 0, SEEK_CUR);                                     \
        offset = position(file);                                                     \
        if (offset != here) lseek(file, here, SEEK_SET);                             \
    }                                                                                \
    uint64_t number = begin(WRITE, sync_flag(file), offset, path, NULL, data, parts); \
    ssize_t result = call;                                                           \
    end(number, result);                                                             \
    return result

ssize_t write(int file, const void *bytes, size_t n)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    struct iovec data = {(void *)bytes, n};
    RECORDED(file, -2, &data, 1, real(file, bytes, n));
}

ssize_t pwrite64(int file, const void *bytes, size_t n, off64_t at)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    struct iovec data = {(void *)bytes, n};
    RECORDED(file, at, &data, 1, real(file, bytes, n, at));
}

ssize_t pwrite(int file, const void *bytes, size_t n, off_t at) { return pwrite64(file, bytes, n, at); }

ssize_t writev(int file, const struct iovec *data, int parts)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    RECORDED(file, -2, data, parts, real(file, data, parts));
}

ssize_t pwritev64(int file, const struct iovec *data, int parts, off64_t at)
{
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    RECORDED(file, at, data, parts, real(file, data, parts, at));
}

ssize_t pwritev(int file, const struct iovec *data, int parts, off_t at)
{
    return pwritev64(file, data, parts, at);
}

ssize_t pwritev64v2(int file, const struct iovec *data, int parts, off64_t at, int flags)
{
    REAL(ssize_t, "pwritev64v2", int, const struct iovec *, int, off64_t, int);
    if (flags & ~RWF_HIPRI) {  /* what they would mean is not recorded: callers do without */
        char path[PATH_MAX];
        if (path_of(file, path)) { errno = EOPNOTSUPP; return -1; }
    }
    RECORDED(file, at == -1 ? -2 : at, data, parts, real(file, data, parts, at, flags));
}

ssize_t pwritev2(int file, const struct iovec *data, int parts, off_t at, int flags)
{
    return pwritev64v2(file, data, parts, at, flags);
}

/* What copies between descriptors without the bytes passing through here: not allowed there. */
static ssize_t refused(int to)
{
    char path[PATH_MAX];
    if (!path_of(to, path)) return 0;
    errno = EINVAL;  /* callers fall back on read and write */
    return -1;
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t n)
{
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    return refused(to) ? -1 : real(to, from, at, n);
}

ssize_t sendfile(int to, int from, off_t *at, size_t n) { return sendfile64(to, from, at, n); }

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t n, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    return refused(to) ? -1 : real(from, at, to, there, n, flags);
}

/* --------------------------------------------------------------------------------------- sizes */

int ftruncate64(int file, off64_t size)
{
    REAL(int, "ftruncate64", int, off64_t);
    char path[PATH_MAX];
    if (!path_of(file, path)) return real(file, size);
    uint64_t number = begin(TRUNCATE, 0, size, path, NULL, NULL, 0);
    int result = real(file, size);
    end(number, result);
    return result;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int truncate64(const char *name, off64_t size)
{
    REAL(int, "truncate64", const char *, off64_t);
    char path[PATH_MAX];
    if (!whole_path(AT_FDCWD, name, path)) return real(name, size);
    uint64_t number = begin(TRUNCATE, 0, size, path, NULL, NULL, 0);
    int result = real(name, size);
    end(number, result);
    return result;
}

int truncate(const char *name, off_t size) { return truncate64(name, size); }

/* Room that is taken beforehand: a size, and zeros. What else fallocate can do is not allowed. */
int fallocate64(int file, int mode, off64_t at, off64_t n)
{
    REAL(int, "fallocate64", int, int, off64_t, off64_t);
    char path[PATH_MAX];
    struct stat status;
    if (!path_of(file, path)) return real(file, mode, at, n);
    if (mode || fstat(file, &status)) { errno = EOPNOTSUPP; return -1; }
    int64_t size = at + n > status.st_size ? at + n : status.st_size;
    uint64_t number = begin(TRUNCATE, 0, size, path, NULL, NULL, 0);
    int result = real(file, mode, at, n);
    end(number, result);
    return result;
}

int fallocate(int file, int mode, off_t at, off_t n) { return fallocate64(file, mode, at, n); }

int posix_fallocate64(int file, off64_t at, off64_t n)
{
    return fallocate64(file, 0, at, n) ? errno : 0;
}

int posix_fallocate(int file, off_t at, off_t n) { return posix_fallocate64(file, at, n); }

/* --------------------------------------------------------------------------------------- syncs */

#define SYNC_CALL(name)                                                     \
    int name(int file)                                                      \
    {                                                                       \
        REAL(int, #name, int);                                              \
        char path[PATH_MAX];                                                \
        if (!path_of(file, path)) return real(file);                        \
        uint64_t number = begin(SYNC, 0, 0, path, NULL, NULL, 0);           \
        int result = real(file);                                            \
        end(number, result);                                                \
        return result;                                                      \
    }

SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

/* Shared memory that can be written is told of, so that a reader of the log can object. */
void *mmap64(void *at, size_t n, int protection, int flags, int file, off64_t offset)
{
    REAL(void *, "mmap64", void *, size_t, int, int, int, off64_t);
    char path[PATH_MAX];
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && file >= 0 && path_of(file, path))
        end(begin(MAP, 0, offset, path, NULL, NULL, 0), 0);
    return real(at, n, protection, flags, file, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int file, off_t offset)
{
    return mmap64(at, n, protection, flags, file, offset);
}

/* --------------------------------------------------------------------------------------- names */

static int recorded_open(int (*real)(int, const char *, int, ...), int folder, const char *name,
                         int flags, mode_t mode)
{
    char path[PATH_MAX];
    struct stat status;
    uint64_t number = 0;
    if (!(flags & (O_CREAT | O_TRUNC)) || !whole_path(folder, name, path))
        return real(folder, name, flags, mode);
    int there = stat(path, &status) == 0;
    if (there ? (flags & O_TRUNC) && status.st_size : flags & O_CREAT)
        number = begin(there ? TRUNCATE : CREATE, 0, 0, path, NULL, NULL, 0);
    int result = real(folder, name, flags, mode);
    if (number) end(number, result < 0 ? -1 : 0);
    return result;
}

#define OPEN_CALL(name, parameters, folder)                                               \
    int name parameters                                                                   \
    {                                                                                     \
        REAL(int, "openat64", int, const char *, int, ...);                               \
        mode_t mode = 0;                                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                                              \
            va_list rest;                                                                 \
            va_start(rest, flags);                                                        \
            mode = va_arg(rest, mode_t);                                                  \
            va_end(rest);                                                                 \
        }                                                                                 \
        return recorded_open(real, folder, file, flags, mode);                            \
    }

OPEN_CALL(open, (const char *file, int flags, ...), AT_FDCWD)
OPEN_CALL(open64, (const char *file, int flags, ...), AT_FDCWD)
OPEN_CALL(openat, (int at, const char *file, int flags, ...), at)
OPEN_CALL(openat64, (int at, const char *file, int flags, ...), at)

int __open_2(const char *file, int flags) { return open64(file, flags); }
int __open64_2(const char *file, int flags) { return open64(file, flags); }
int creat(const char *file, mode_t mode) { return open64(file, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *file, mode_t mode) { return creat(file, mode); }

int renameat2(int from, const char *name, int to, const char *other, unsigned flags)
{
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    char path[PATH_MAX], target[PATH_MAX];
    int first = whole_path(from, name, path), second = whole_path(to, other, target);
    if (!first && !second) return real(from, name, to, other, flags);
    if (flags & ~1u) { errno = EINVAL; return -1; }  /* RENAME_NOREPLACE is a rename */
    uint64_t number = begin(RENAME, 0, 0, path, target, NULL, 0);
    int result = real(from, name, to, other, flags);
    end(number, result);
    return result;
}

int renameat(int from, const char *name, int to, const char *other)
{
    return renameat2(from, name, to, other, 0);
}

int rename(const char *name, const char *other)
{
    return renameat2(AT_FDCWD, name, AT_FDCWD, other, 0);
}

int linkat(int from, const char *name, int to, const char *other, int flags)
{
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char path[PATH_MAX], target[PATH_MAX];
    if (!whole_path(from, name, path) || !whole_path(to, other, target))
        return real(from, name, to, other, flags);
    uint64_t number = begin(LINK, 0, 0, path, target, NULL, 0);
    int result = real(from, name, to, other, flags);
    end(number, result);
    return result;
}

int link(const char *name, const char *other)
{
    return linkat(AT_FDCWD, name, AT_FDCWD, other, 0);
}

int unlinkat(int folder, const char *name, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    char path[PATH_MAX];
    if (!whole_path(folder, name, path)) return real(folder, name, flags);
    uint64_t number =
        begin(flags & AT_REMOVEDIR ? REMOVE_FOLDER : UNLINK, 0, 0, path, NULL, NULL, 0);
    int result = real(folder, name, flags);
    end(number, result);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int remove(const char *name)
{
    struct stat status;
    if (lstat(name, &status)) return -1;
    return S_ISDIR(status.st_mode) ? rmdir(name) : unlink(name);
}

int mkdirat(int folder, const char *name, mode_t mode)
{
    REAL(int, "mkdirat", int, const char *, mode_t);
    char path[PATH_MAX];
    if (!whole_path(folder, name, path)) return real(folder, name, mode);
    uint64_t number = begin(MAKE_FOLDER, 0, 0, path, NULL, NULL, 0);
    int result = real(folder, name, mode);
    end(number, result);
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
