#include "edgeprune/dispatch.hpp"

#include <atomic>
#include <stdexcept>

#include "kernels_table.hpp"

namespace edgeprune {
namespace {

const Kernels* best() {
#if defined(EDGEPRUNE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
        __builtin_cpu_supports("bmi2"))
        return &avx2_kernels;
#endif
#if defined(EDGEPRUNE_NEON)
    return &neon_kernels;  // part of every aarch64
#else
    return &scalar_kernels;
#endif
}

std::atomic<const Kernels*>& current() {
    static std::atomic<const Kernels*> chosen{best()};
    return chosen;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

std::string simd_name() { return kernels().name; }

std::vector<std::string> simd_available() {
    std::vector<std::string> names{scalar_kernels.name};
    if (best() != &scalar_kernels) names.emplace_back(best()->name);
    return names;
}

void simd_select(const std::string& name) {
    if (name == "auto" || name == best()->name)
        current() = best();
    else if (name == scalar_kernels.name)
        current() = &scalar_kernels;
    else
        throw std::invalid_argument("no kernels named '" + name + "' for this processor");
}

}  // namespace edgeprune
