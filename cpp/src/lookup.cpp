#include "lookup.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "edgeprune/edges.hpp"

namespace edgeprune {
namespace {

constexpr int beyond = 0x7f80;  // magnitude of infinity, which no finite value reaches

// The magnitudes 2, 3, ... at which a channel's code changes.
struct Changes {
    int smallest = beyond, largest = 0;
    void see(int magnitude) {
        if (magnitude < 2 || magnitude >= beyond) return;  // zero and the rest have entries of their own
        smallest = std::min(smallest, magnitude);
        largest = std::max(largest, magnitude);
    }
    int entries() const { return largest == 0 ? 3 : largest - smallest + 3; }
};

int key_at(const float* threshold) { return key_of(std::bit_cast<std::uint32_t>(*threshold)); }

// A positive threshold raises the code from its magnitude on, a negative one up to its magnitude.
int change_of(int key) { return key >= 0 ? key : -key; }

}  // namespace

void GroupLookup::build(const float* thresholds, std::size_t count, std::size_t width) {
    holds_ = 0;
    std::size_t used = 0;
    for (std::size_t lane = 0; lane < group_channels; ++lane) {
        const float* own = thresholds + lane * count;
        Changes changes;
        const bool wanted = lane < width && on_grid(own, count);
        if (wanted)
            for (std::size_t j = 0; j < count; ++j) changes.see(change_of(key_at(own + j)));
        const std::size_t left = codes_.size() - used - 6 * (group_channels - 1 - lane);
        const bool fits = wanted && 2 * static_cast<std::size_t>(changes.entries()) <= left;
        if (!fits) changes = {};
        const int low = changes.largest == 0 ? 2 : changes.smallest;
        const int high = changes.largest == 0 ? 2 : changes.largest;
        const int entries = changes.entries();
        rule_.add[lane] = static_cast<std::uint16_t>(0xffff - high);
        rule_.subtract[lane] = static_cast<std::uint16_t>(0xffff - high + low - 2);
        rule_.negative[lane] = static_cast<std::uint16_t>(entries);
        rule_.offset[lane] = static_cast<std::uint16_t>(used);
        std::uint8_t* positive = codes_.data() + used;
        std::uint8_t* negative = positive + entries;
        used += 2 * static_cast<std::size_t>(entries);
        if (!fits) {
            std::memset(positive, 0, 2 * static_cast<std::size_t>(entries));
            continue;
        }
        holds_ |= 1u << lane;
        // Thresholds ascend, so each one's code holds from its cell to the next one's: runs of one byte.
        const auto entry = [&](int magnitude) {
            if (magnitude < 2) return magnitude;
            return std::clamp(magnitude - low + 2, 1, entries);
        };
        std::size_t below = 0;  // thresholds of negative keys
        while (below < count && key_at(own + below) < 0) ++below;
        int end = entries;
        for (std::size_t j = 0; j < below; ++j) {  // magnitudes at and above -key stay below threshold j
            const int begin = entry(change_of(key_at(own + j)));
            if (begin < end) {
                std::memset(negative + begin, static_cast<int>(j), static_cast<std::size_t>(end - begin));
                end = begin;
            }
        }
        std::memset(negative, static_cast<int>(below), static_cast<std::size_t>(end));
        int begin = 0;
        for (std::size_t j = below; j < count; ++j) {
            const int key = key_at(own + j);
            const int next = key >= beyond ? entries : entry(key);
            if (next > begin) {
                std::memset(positive + begin, static_cast<int>(j), static_cast<std::size_t>(next - begin));
                begin = next;
            }
        }
        if (begin < entries) std::memset(positive + begin, static_cast<int>(count), static_cast<std::size_t>(entries - begin));
    }
}

}  // namespace edgeprune
