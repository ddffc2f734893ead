// One element of any supported type as float32: the definition that the vector loops match.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "edgeprune/view.hpp"

namespace edgeprune {

inline float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
    const std::uint32_t exponent = (half >> 10) & 0x1fu;
    const std::uint32_t mantissa = half & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact in float32
    return sign ? -tiny : tiny;
}

inline bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) != 0x7f800000u; }

template <Dtype>
struct Element;

template <>
struct Element<Dtype::float32> {
    using Stored = float;
    static float load(const char* at) {
        float value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }
};

template <>
struct Element<Dtype::float64> {
    using Stored = double;
    static float load(const char* at) {
        double value;
        std::memcpy(&value, at, sizeof value);
        return static_cast<float>(value);
    }
};

template <>
struct Element<Dtype::float16> {
    using Stored = std::uint16_t;
    static float load(const char* at) {
        std::uint16_t value;
        std::memcpy(&value, at, sizeof value);
        return half_to_float(value);
    }
};

template <>
struct Element<Dtype::bfloat16> {
    using Stored = std::uint16_t;
    static float load(const char* at) {
        std::uint16_t value;
        std::memcpy(&value, at, sizeof value);
        return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
    }
};

}  // namespace edgeprune
