/* Fails the k-th call of a kind that touches files below a watched path. For LD_PRELOAD.

   faults_watch(prefix) says which files, before they are opened. faults_arm(kind, k, error, mode)
   lets k calls of that kind pass and fails the next one with errno `error`; mode 1 fails all that
   follow too, mode 2 writes half of what it was given first and returns that. faults_arm(0, …)
   disarms. faults_seen() counts the calls of that kind since, faults_fired() those that failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, READ, WRITE, SYNC, RENAME, MMAP, TRUNCATE, UNLINK, LOCK, MKDIR };

static char prefix[4096];
static unsigned char watched[65536];
static int kind, error, mode;
static long passing, seen, fired;

void faults_watch(const char *path) { strncpy(prefix, path, sizeof prefix - 1); }

void faults_arm(int of, long k, int with, int how)
{
    kind = of, passing = k, error = with, mode = how;
    seen = fired = 0;
}

long faults_seen(void) { return seen; }
long faults_fired(void) { return fired; }

static int fails(int of, int concerned)
{
    if (of != kind || !concerned)
        return 0;
    if (seen++ < passing || (fired && !(mode & 1)))
        return 0;
    fired++;
    errno = error;
    return 1;
}

static int below(const char *path)
{
    return *prefix && path && !strncmp(path, prefix, strlen(prefix));
}

static int ours(int file) { return file >= 0 && file < (int)sizeof watched && watched[file]; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define NEXT(name)                      \
    static __typeof__(&name) next;      \
    if (!next)                          \
        next = REAL(name);

#define OPENS(name)                                                              \
    int name(const char *path, int flags, ...)                                   \
    {                                                                            \
        NEXT(name)                                                               \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        int given = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;       \
        va_end(rest);                                                            \
        if (fails(OPEN, below(path)))                                            \
            return -1;                                                           \
        int file = next(path, flags, given);                                     \
        if (file >= 0 && file < (int)sizeof watched)                             \
            watched[file] = (unsigned char)below(path);                          \
        return file;                                                             \
    }
OPENS(open)
OPENS(open64)

int close(int file)
{
    NEXT(close)
    if (file >= 0 && file < (int)sizeof watched)
        watched[file] = 0;
    return next(file);
}

/* What a short write is asked for: half of it, where there is more than a byte. */
static size_t part(size_t size) { return mode & 2 && size > 1 ? size / 2 : 0; }

#define WRITES(name, more, pass)                                                 \
    ssize_t name(int file, const void *bytes, size_t size more)                  \
    {                                                                            \
        NEXT(name)                                                               \
        if (fails(WRITE, ours(file))) {                                          \
            if (!part(size))                                                     \
                return -1;                                                       \
            size = part(size);                                                   \
        }                                                                        \
        return next(file, bytes, size pass);                                     \
    }
#define COMMA ,
WRITES(write, , )
WRITES(pwrite, COMMA off_t at, COMMA at)
WRITES(pwrite64, COMMA off_t at, COMMA at)

#define VECTORS(name, more, pass)                                                \
    ssize_t name(int file, const struct iovec *pieces, int count more)           \
    {                                                                            \
        NEXT(name)                                                               \
        if (fails(WRITE, ours(file))) {                                          \
            if (!(mode & 2))                                                     \
                return -1;                                                       \
            struct iovec first = *pieces;                                        \
            first.iov_len = part(first.iov_len);                                 \
            return next(file, &first, 1 pass);                                   \
        }                                                                        \
        return next(file, pieces, count pass);                                   \
    }
VECTORS(writev, , )
VECTORS(pwritev, COMMA off_t at, COMMA at)
VECTORS(pwritev64, COMMA off_t at, COMMA at)

#define CALL(type, name, of, concerned, declared, passed)                        \
    type name declared                                                           \
    {                                                                            \
        NEXT(name)                                                               \
        if (fails(of, concerned))                                                \
            return (type)-1;                                                     \
        return next passed;                                                      \
    }
CALL(ssize_t, read, READ, ours(file), (int file, void *bytes, size_t size), (file, bytes, size))
CALL(ssize_t, pread, READ, ours(file), (int file, void *bytes, size_t size, off_t at),
     (file, bytes, size, at))
CALL(ssize_t, pread64, READ, ours(file), (int file, void *bytes, size_t size, off_t at),
     (file, bytes, size, at))
CALL(int, fsync, SYNC, ours(file), (int file), (file))
CALL(int, fdatasync, SYNC, ours(file), (int file), (file))
CALL(int, msync, SYNC, kind == SYNC, (void *at, size_t size, int how), (at, size, how))
CALL(int, rename, RENAME, below(from), (const char *from, const char *to), (from, to))
CALL(int, unlink, UNLINK, below(path), (const char *path), (path))
CALL(int, mkdir, MKDIR, below(path), (const char *path, mode_t how), (path, how))
CALL(int, ftruncate, TRUNCATE, ours(file), (int file, off_t size), (file, size))
CALL(int, ftruncate64, TRUNCATE, ours(file), (int file, off_t size), (file, size))
CALL(int, fallocate, TRUNCATE, ours(file), (int file, int how, off_t at, off_t size),
     (file, how, at, size))
CALL(ssize_t, sendfile, WRITE, ours(to), (int to, int from, off_t *at, size_t size),
     (to, from, at, size))
CALL(ssize_t, copy_file_range, WRITE, ours(to),
     (int from, off64_t *at, int to, off64_t *into, size_t size, unsigned how),
     (from, at, to, into, size, how))
CALL(int, flock, LOCK, ours(file), (int file, int how), (file, how))
CALL(void *, mmap, MMAP, ours(file), (void *at, size_t size, int how, int flags, int file, off_t from),
     (at, size, how, flags, file, from))
CALL(void *, mmap64, MMAP, ours(file),
     (void *at, size_t size, int how, int flags, int file, off_t from),
     (at, size, how, flags, file, from))

int posix_fallocate(int file, off_t at, off_t size) /* returns its error */
{
    NEXT(posix_fallocate)
    return fails(TRUNCATE, ours(file)) ? error : next(file, at, size);
}
