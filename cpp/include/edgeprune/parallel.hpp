// Run a loop over items on several threads.
//
// Gives: parallel_for, which hands out chunks of items in increasing order. Every item is worked
// on by exactly one thread and writes only its own output, so results never depend on the number
// of threads, nor on how many of them the system could start: the others do the work. The first
// exception thrown by any thread is rethrown to the caller. Bodies run in IEEE arithmetic (float_mode.hpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "edgeprune/float_mode.hpp"

namespace edgeprune {

// 0 asks for one thread per processor that this process may use.
std::size_t resolve_threads(std::size_t requested);

// How many of them find work: at most one per chunk, at least one. Scratch memory for more would lie idle.
inline std::size_t crew_size(std::size_t requested, std::size_t items, std::size_t chunk) {
    const std::size_t chunks = (items + chunk - 1) / std::max<std::size_t>(chunk, 1);
    return std::max<std::size_t>(std::min(resolve_threads(requested), chunks), 1);
}

// Channels of a block: `most`, or fewer, in sixteens, where threads would idle.
inline std::size_t fair_block(std::size_t channels, std::size_t threads, std::size_t most) {
    const std::size_t share = (channels + threads - 1) / threads;
    return std::clamp<std::size_t>((share + 15) / 16 * 16, 16, most);
}

// body(begin, end, worker): worker < threads names the thread, for private scratch memory.
template <class Body>
void parallel_for(std::size_t items, std::size_t chunk, std::size_t threads, Body&& body) {
    chunk = std::max<std::size_t>(chunk, 1);
    const std::size_t chunks = (items + chunk - 1) / chunk;
    threads = std::min(std::max<std::size_t>(threads, 1), std::max<std::size_t>(chunks, 1));
    if (threads == 1) {
        const IeeeFloats ieee;
        if (items != 0) body(std::size_t{0}, items, std::size_t{0});
        return;
    }
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    std::mutex guard;
    auto work = [&](std::size_t worker) {
        const IeeeFloats ieee;
        try {
            while (!failed.load(std::memory_order_relaxed)) {
                const std::size_t begin = next.fetch_add(1) * chunk;
                if (begin >= items) break;
                body(begin, std::min(items, begin + chunk), worker);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!error) error = std::current_exception();
            failed = true;
        }
    };
    std::vector<std::thread> crew;
    crew.reserve(threads - 1);
    try {
        for (std::size_t worker = 1; worker < threads; ++worker) crew.emplace_back(work, worker);
    } catch (...) {
        // No memory or no process entry for another thread: those that run, and this one, take every chunk. To
        // unwind here would destroy threads that are still joinable, which ends the process.
    }
    work(0);
    for (auto& member : crew) member.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace edgeprune
