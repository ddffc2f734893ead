// A matrix of activations as it lies in memory: any stride, four floating types.
//
// Gives: View, and load_tile, which copies a small tile into float32, one channel after the other.
// Everything downstream sees only such tiles, so no layout or type is ever copied as a whole.
// Values reach float32 by rounding to nearest (float64) or exactly (the others).
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune {

enum class Dtype { float32, float64, float16, bfloat16 };

struct View {
    const void* data = nullptr;
    Dtype dtype = Dtype::float32;
    std::size_t samples = 0;
    std::size_t channels = 0;
    std::ptrdiff_t sample_stride = 0;   // in bytes; may be zero or negative
    std::ptrdiff_t channel_stride = 0;  // in bytes
};

// One element as float32.
float load_value(const View& view, std::size_t sample, std::size_t channel);

// Copy `count` samples (rows[i], or first + i where rows is null) of `width` channels from
// `channel` on into out[c * pitch + i], as float32 or as keys (edges.hpp). Returns false if any value
// is NaN or infinite.
template <class T>
bool load_tile(const View& view, const std::uint32_t* rows, std::size_t first, std::size_t count,
               std::size_t channel, std::size_t width, T* out, std::size_t pitch);

struct Position {
    bool found = false;
    std::size_t sample = 0;
    std::size_t channel = 0;
    float value = 0;
};

// The first value, sample by sample, that is NaN or infinite as float32.
Position find_non_finite(const View& view);

}  // namespace edgeprune
