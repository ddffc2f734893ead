// IEEE arithmetic whatever the caller's thread was set to.
//
// torch.set_flush_denormal and -ffast-math start-up code make a thread take subnormal numbers for zero. The
// thresholds around zero (edges.hpp) are subnormal, so codes would change. While an IeeeFloats lives, its
// thread rounds to nearest and keeps subnormal numbers; what was set before is set again afterwards.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace edgeprune {

class IeeeFloats {
public:
    IeeeFloats() : before_(get()) { set(before_ & ~changes_arithmetic); }
    ~IeeeFloats() { set(before_); }
    IeeeFloats(const IeeeFloats&) = delete;
    IeeeFloats& operator=(const IeeeFloats&) = delete;

private:
#if defined(__SSE2__)
    static constexpr std::uint64_t changes_arithmetic = 0xe040;  // flush to zero, rounding, denormals are zero
    static std::uint64_t get() { return _mm_getcsr(); }
    static void set(std::uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
    static constexpr std::uint64_t changes_arithmetic = 0x7 << 22 | 1 << 19;  // rounding, FZ, and FZ16
    static std::uint64_t get() {
        std::uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
    static constexpr std::uint64_t changes_arithmetic = 0;  // other processors: as the caller has it
    static std::uint64_t get() { return 0; }
    static void set(std::uint64_t) {}
#endif
    std::uint64_t before_;
};

}  // namespace edgeprune
