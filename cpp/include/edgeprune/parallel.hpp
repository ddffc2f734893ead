// Run a loop over items on several threads.
//
// Gives: parallel_for, which hands out chunks of items in increasing order. Every item is worked
// on by exactly one thread and writes only its own output, so results never depend on the number
// of threads. The first exception thrown by any thread is rethrown to the caller.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace edgeprune {

// 0 asks for one thread per processor that this process may use.
std::size_t resolve_threads(std::size_t requested);

// body(begin, end, worker): worker < threads names the thread, for private scratch memory.
template <class Body>
void parallel_for(std::size_t items, std::size_t chunk, std::size_t threads, Body&& body) {
    chunk = std::max<std::size_t>(chunk, 1);
    const std::size_t chunks = (items + chunk - 1) / chunk;
    threads = std::min(std::max<std::size_t>(threads, 1), std::max<std::size_t>(chunks, 1));
    if (threads == 1) {
        if (items != 0) body(std::size_t{0}, items, std::size_t{0});
        return;
    }
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    std::mutex guard;
    auto work = [&](std::size_t worker) {
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
    for (std::size_t worker = 1; worker < threads; ++worker) crew.emplace_back(work, worker);
    work(0);
    for (auto& member : crew) member.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace edgeprune
