// A test is a function; CHECK counts and names what failed; finish() is main's return value.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>

#include "edgeprune/dispatch.hpp"

inline int failures = 0;
inline int checks = 0;

#define CHECK(condition)                                                              \
    do {                                                                              \
        ++checks;                                                                     \
        if (!(condition)) {                                                           \
            ++failures;                                                               \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                             \
    } while (false)

#define CHECK_NEAR(a, b, tolerance)                                                   \
    do {                                                                              \
        ++checks;                                                                     \
        const double left_ = (a), right_ = (b);                                       \
        if (!(std::abs(left_ - right_) <= (tolerance))) {                             \
            ++failures;                                                               \
            std::printf("%s:%d: %s = %.17g, %s = %.17g\n", __FILE__, __LINE__, #a, left_, #b, right_); \
        }                                                                             \
    } while (false)

template <class Error, class Call>
bool throws(Call&& call) {
    try {
        call();
    } catch (const Error&) {
        return true;
    } catch (...) {
    }
    return false;
}

// A generator whose numbers are the same on every machine.
struct Random {
    std::uint64_t state = 1;
    std::uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    double normal() {  // the sum of twelve: close enough for test data
        double sum = -6;
        for (int i = 0; i < 12; ++i) sum += uniform();
        return sum;
    }
};

// Runs the test once per instruction set that this machine has.
template <class Test>
void on_every_set(Test&& test) {
    for (const std::string& name : edgeprune::simd_available()) {
        edgeprune::simd_select(name);
        test();
    }
    edgeprune::simd_select("auto");
}

inline int finish() {
    std::string sets;
    for (const std::string& name : edgeprune::simd_available()) sets += " " + name;
    std::printf("%d checks, %d failed; sets:%s\n", checks, failures, sets.c_str());
    return failures == 0 && checks > 0 ? 0 : 1;
}
