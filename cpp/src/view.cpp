#include "edgeprune/view.hpp"

#include <algorithm>
#include <vector>

#include "kernels_table.hpp"

namespace edgeprune {
namespace {

struct Walk {
    const View& view;
    const std::uint32_t* rows;
    std::size_t first;
    const char* at(std::size_t i, std::size_t channel) const {
        const std::size_t sample = rows ? rows[i] : first + i;
        return static_cast<const char*>(view.data) + static_cast<std::ptrdiff_t>(sample) * view.sample_stride +
               static_cast<std::ptrdiff_t>(channel) * view.channel_stride;
    }
};

// Any strides, one element at a time.
template <Dtype dtype, class T>
bool copy_strided(const Walk& walk, std::size_t begin, std::size_t end, std::size_t channel, std::size_t width,
                  T* out, std::size_t pitch) {
    bool finite = true;
    for (std::size_t i = begin; i < end; ++i) {
        const char* at = walk.at(i, channel);
        for (std::size_t c = 0; c < width; ++c, at += walk.view.channel_stride) {
            const float x = Element<dtype>::load(at);
            finite &= is_finite(x);
            out[c * pitch + i] = tile_entry<T>(x);
        }
    }
    return finite;
}

template <Dtype dtype, class T>
bool copy_tile(const Walk& walk, std::size_t count, std::size_t channel, std::size_t width, T* out,
               std::size_t pitch) {
    constexpr std::ptrdiff_t item = sizeof(typename Element<dtype>::Stored);
    constexpr std::size_t which = static_cast<std::size_t>(dtype);
    const TileKernels<T>& use = kernels().tile<T>();
    bool finite = true;
    if (walk.view.sample_stride == item && walk.rows == nullptr) {
        for (std::size_t c = 0; c < width; ++c)
            finite &= use.convert[which](walk.at(0, channel + c), count, out + c * pitch);
        return finite;
    }
    std::size_t i = 0;
    if (walk.view.channel_stride == item) {
        const std::size_t reach = walk.rows ? count : walk.view.samples - walk.first;
        constexpr std::size_t ahead = 16;  // rows lie on other pages, where no hardware prefetch follows
        for (; i + 8 <= count; i += 8) {
            const char* eight[8];
            for (std::size_t r = 0; r < 8; ++r) {
                eight[r] = walk.at(i + r, channel);
                // Beyond this tile's end, too: the next tile usually starts there.
                if (i + r + ahead < reach) {
                    const char* next = walk.at(i + r + ahead, channel);
                    for (std::size_t line = 0; line < width * item; line += 64) __builtin_prefetch(next + line);
                }
            }
            finite &= use.transpose_eight[which](eight, width, out + i, pitch);
        }
    }
    return finite & copy_strided<dtype>(walk, i, count, channel, width, out, pitch);
}

}  // namespace

float load_value(const View& view, std::size_t sample, std::size_t channel) {
    const char* at = Walk{view, nullptr, 0}.at(sample, channel);
    switch (view.dtype) {
        case Dtype::float32: return Element<Dtype::float32>::load(at);
        case Dtype::float64: return Element<Dtype::float64>::load(at);
        case Dtype::float16: return Element<Dtype::float16>::load(at);
        case Dtype::bfloat16: return Element<Dtype::bfloat16>::load(at);
    }
    return 0.0f;
}

template <class T>
bool load_tile(const View& view, const std::uint32_t* rows, std::size_t first, std::size_t count,
               std::size_t channel, std::size_t width, T* out, std::size_t pitch) {
    const Walk walk{view, rows, first};
    switch (view.dtype) {
        case Dtype::float32: return copy_tile<Dtype::float32>(walk, count, channel, width, out, pitch);
        case Dtype::float64: return copy_tile<Dtype::float64>(walk, count, channel, width, out, pitch);
        case Dtype::float16: return copy_tile<Dtype::float16>(walk, count, channel, width, out, pitch);
        case Dtype::bfloat16: return copy_tile<Dtype::bfloat16>(walk, count, channel, width, out, pitch);
    }
    return true;
}

template bool load_tile<float>(const View&, const std::uint32_t*, std::size_t, std::size_t, std::size_t, std::size_t,
                               float*, std::size_t);
template bool load_tile<std::int16_t>(const View&, const std::uint32_t*, std::size_t, std::size_t, std::size_t,
                                      std::size_t, std::int16_t*, std::size_t);

Position find_non_finite(const View& view) {
    constexpr std::size_t block_samples = 64, block_channels = 64;
    std::vector<std::int16_t> keys(block_samples * block_channels);
    for (std::size_t first = 0; first < view.samples; first += block_samples) {
        const std::size_t count = std::min(block_samples, view.samples - first);
        bool finite = true;
        for (std::size_t channel = 0; finite && channel < view.channels; channel += block_channels)
            finite = load_tile(view, nullptr, first, count, channel, std::min(block_channels, view.channels - channel),
                               keys.data(), block_samples);
        if (finite) continue;
        for (std::size_t sample = first; sample < first + count; ++sample)
            for (std::size_t channel = 0; channel < view.channels; ++channel) {
                const float value = load_value(view, sample, channel);
                if (!is_finite(value)) return {true, sample, channel, value};
            }
    }
    return {};
}

}  // namespace edgeprune
