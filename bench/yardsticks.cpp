/* Hash maps of C++: digest → int64, each at a batch a call. Built and called by bench/yardsticks.py,
 * once for each map: -DMAP_STD, -DMAP_ABSL, -DMAP_BOOST, -DMAP_TSL or -DMAP_ANKERL.
 *
 * The hash is a digest's first 8 bytes, which are as random as any hash of them; each map mixes it
 * further or does not, as it does by default.
 */
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(MAP_STD)
#include <unordered_map>
template <class K, class H> using Map = std::unordered_map<K, int64_t, H>;
#elif defined(MAP_ABSL)
#include <absl/container/flat_hash_map.h>
template <class K, class H> using Map = absl::flat_hash_map<K, int64_t, H>;
#elif defined(MAP_BOOST)
#include <boost/unordered/unordered_flat_map.hpp>
template <class K, class H> using Map = boost::unordered_flat_map<K, int64_t, H>;
#elif defined(MAP_TSL)
#include <tsl/robin_map.h>
template <class K, class H> using Map = tsl::robin_map<K, int64_t, H>;
#elif defined(MAP_ANKERL)
#include <ankerl/unordered_dense.h>
template <class K, class H> using Map = ankerl::unordered_dense::map<K, int64_t, H>;
#endif

struct Table {
    virtual ~Table() = default;
    virtual void insert(const uint8_t *digests, const int64_t *values, size_t n) = 0;
    virtual void find(const uint8_t *digests, int64_t *out, size_t n) const = 0;
    virtual void erase(const uint8_t *digests, size_t n) = 0;
};

template <size_t width> struct Of final : Table {
    using Digest = std::array<uint8_t, width>;

    struct Hash {
        size_t operator()(const Digest &digest) const noexcept
        {
            uint64_t first;
            std::memcpy(&first, digest.data(), sizeof first);
            return first;
        }
    };

    Map<Digest, Hash> map;

    static const Digest &at(const uint8_t *digests, size_t i)
    {
        return *reinterpret_cast<const Digest *>(digests + i * width);
    }

    void insert(const uint8_t *digests, const int64_t *values, size_t n) override
    {
        for (size_t i = 0; i < n; i++)
            map[at(digests, i)] = values[i];
    }

    void find(const uint8_t *digests, int64_t *out, size_t n) const override
    {
        for (size_t i = 0; i < n; i++) {
            const auto found = map.find(at(digests, i));
            out[i] = found == map.end() ? -1 : found->second;
        }
    }

    void erase(const uint8_t *digests, size_t n) override
    {
        for (size_t i = 0; i < n; i++)
            map.erase(at(digests, i));
    }
};

extern "C" {

Table *table_new(size_t width)
{
    switch (width) {
    case 8:
        return new Of<8>;
    case 16:
        return new Of<16>;
    case 32:
        return new Of<32>;
    }
    return nullptr;
}

void table_free(Table *table)
{
    delete table;
}

void table_insert(Table *table, const uint8_t *digests, const int64_t *values, size_t n)
{
    table->insert(digests, values, n);
}

void table_find(const Table *table, const uint8_t *digests, int64_t *out, size_t n)
{
    table->find(digests, out, n);
}

void table_delete(Table *table, const uint8_t *digests, size_t n)
{
    table->erase(digests, n);
}
}
