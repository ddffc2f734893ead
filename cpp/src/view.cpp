#include "edgeprune/view.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels.hpp"

namespace edgeprune {
namespace {

template <class T>
T read(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const std::uint32_t exponent = (half >> 10) & 0x1fu;
    const std::uint32_t mantissa = half & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact in float32
    return sign ? -tiny : tiny;
}

float load_as_float(const char* at, Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return read<float>(at);
        case Dtype::float64: return static_cast<float>(read<double>(at));
        case Dtype::float16: return half_to_float(read<std::uint16_t>(at));
        case Dtype::bfloat16:
            return std::bit_cast<float>(static_cast<std::uint32_t>(read<std::uint16_t>(at)) << 16);
    }
    return 0.0f;
}

template <Dtype dtype>
void copy_tile(const View& view, const std::uint32_t* rows, std::size_t first, std::size_t count,
               std::size_t channel, std::size_t width, float* out, std::size_t pitch) {
    const char* base = static_cast<const char*>(view.data) +
                       static_cast<std::ptrdiff_t>(channel) * view.channel_stride;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t sample = rows ? rows[i] : first + i;
        const char* at = base + static_cast<std::ptrdiff_t>(sample) * view.sample_stride;
        for (std::size_t c = 0; c < width; ++c, at += view.channel_stride)
            out[c * pitch + i] = load_as_float(at, dtype);
    }
}

}  // namespace

float load_value(const View& view, std::size_t sample, std::size_t channel) {
    return load_as_float(static_cast<const char*>(view.data) +
                             static_cast<std::ptrdiff_t>(sample) * view.sample_stride +
                             static_cast<std::ptrdiff_t>(channel) * view.channel_stride,
                         view.dtype);
}

bool load_tile(const View& view, const std::uint32_t* rows, std::size_t first, std::size_t count,
               std::size_t channel, std::size_t width, float* out, std::size_t pitch) {
    switch (view.dtype) {
        case Dtype::float32: copy_tile<Dtype::float32>(view, rows, first, count, channel, width, out, pitch); break;
        case Dtype::float64: copy_tile<Dtype::float64>(view, rows, first, count, channel, width, out, pitch); break;
        case Dtype::float16: copy_tile<Dtype::float16>(view, rows, first, count, channel, width, out, pitch); break;
        case Dtype::bfloat16: copy_tile<Dtype::bfloat16>(view, rows, first, count, channel, width, out, pitch); break;
    }
    bool finite = true;
    for (std::size_t c = 0; c < width; ++c) finite &= kernels().all_finite(out + c * pitch, count);
    return finite;
}

Position find_non_finite(const View& view) {
    for (std::size_t sample = 0; sample < view.samples; ++sample)
        for (std::size_t channel = 0; channel < view.channels; ++channel) {
            const float value = load_value(view, sample, channel);
            if (!std::isfinite(value)) return {true, sample, channel, value};
        }
    return {};
}

}  // namespace edgeprune
