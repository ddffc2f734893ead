#include "edgeprune/parallel.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace edgeprune {

std::size_t resolve_threads(std::size_t requested) {
    if (requested != 0) return requested;
#if defined(__linux__)
    // hardware_concurrency ignores the affinity mask that containers and taskset set.
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int count = CPU_COUNT(&set);
        if (count > 0) return static_cast<std::size_t>(count);
    }
#endif
    const unsigned count = std::thread::hardware_concurrency();
    return count == 0 ? 1 : count;
}

}  // namespace edgeprune
