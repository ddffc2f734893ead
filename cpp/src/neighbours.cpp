#include "edgeprune/neighbours.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

// psi(n) for 1..count, by psi(n + 1) = psi(n) + 1/n.
std::vector<double> digamma_table(std::size_t count) {
    std::vector<double> table(count + 1, -0.57721566490153286060651209008240243);
    for (std::size_t n = 1; n < count; ++n) table[n + 1] = table[n] + 1 / static_cast<double>(n);
    return table;
}

// Last place, starting at `at` and going up (or down), whose value is still near: galloping, because
// most neighbourhoods are small and some, at an atom, hold half of the samples.
template <class Near>
std::size_t reach_up(std::size_t at, std::size_t end, Near&& near) {
    std::size_t good = at, step = 1;
    while (good + step < end && near(good + step)) {
        good += step;
        step *= 2;
    }
    std::size_t bad = std::min(end, good + step);
    while (good + 1 < bad) {
        const std::size_t middle = good + (bad - good) / 2;
        (near(middle) ? good : bad) = middle;
    }
    return good;
}

template <class Near>
std::size_t reach_down(std::size_t at, Near&& near) {
    const std::size_t reach = reach_up(0, at + 1, [&](std::size_t below) { return near(at - below); });
    return at - reach;
}

// Samples of the sorted `values` strictly nearer to values[at] than radius (exactly there, for radius 0).
std::size_t count_near(const std::vector<double>& values, std::size_t at, double radius) {
    const double centre = values[at];
    const auto near = [&](std::size_t i) {
        const double distance = std::abs(values[i] - centre);
        return radius > 0 ? distance < radius : distance == 0;
    };
    return reach_up(at, values.size(), near) - reach_down(at, near) + 1;
}

struct Sample {
    double value;
    std::int32_t label;
};

// A float32's bits made to order as unsigned integers, with the sample's label.
struct Keyed {
    std::uint32_t key;
    std::int32_t label;
};

struct RossScratch {
    std::vector<Sample> sorted;
    std::vector<Keyed> keyed, spare;
    std::vector<double> values, own;
    std::vector<std::size_t> place;
};

// Sort by value. Activations are nearly always float32, and those sort by radix in three passes.
void sort_samples(RossScratch& work) {
    work.keyed.clear();
    for (const Sample& sample : work.sorted) {
        const float value = static_cast<float>(sample.value);
        if (static_cast<double>(value) != sample.value) break;
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(value + 0.0f);  // -0 and 0 are one value
        work.keyed.push_back({bits >> 31 ? ~bits : bits | 0x80000000u, sample.label});
    }
    if (work.keyed.size() != work.sorted.size()) {
        std::sort(work.sorted.begin(), work.sorted.end(),
                  [](const Sample& a, const Sample& b) { return a.value < b.value; });
        return;
    }
    constexpr unsigned digit_bits = 11;
    constexpr std::uint32_t mask = (1u << digit_bits) - 1;
    work.spare.resize(work.keyed.size());
    for (unsigned shift = 0; shift < 32; shift += digit_bits) {
        std::array<std::size_t, mask + 2> place{};
        for (const Keyed& item : work.keyed) ++place[((item.key >> shift) & mask) + 1];
        std::partial_sum(place.begin(), place.end(), place.begin());
        for (const Keyed& item : work.keyed) work.spare[place[(item.key >> shift) & mask]++] = item;
        work.keyed.swap(work.spare);
    }
    for (std::size_t i = 0; i < work.keyed.size(); ++i) {
        const std::uint32_t key = work.keyed[i].key;
        const float value = std::bit_cast<float>(key >> 31 ? key & 0x7fffffffu : ~key);
        work.sorted[i] = {static_cast<double>(value), work.keyed[i].label};
    }
}

double ross_one(const double* x, std::size_t samples, const std::int32_t* labels,
                const std::vector<std::size_t>& per_class, std::size_t neighbours, const std::vector<double>& psi,
                RossScratch& work) {
    work.sorted.clear();
    for (std::size_t i = 0; i < samples; ++i)
        if (per_class[static_cast<std::size_t>(labels[i])] > 1) work.sorted.push_back({x[i], labels[i]});
    const std::size_t used = work.sorted.size();
    if (used == 0) return 0;
    sort_samples(work);
    if (work.sorted.front().value == work.sorted.back().value) return 0;  // of one value, whatever rounding says
    work.values.resize(used);
    for (std::size_t i = 0; i < used; ++i) work.values[i] = work.sorted[i].value;

    // Samples class after class, each class in order of value.
    std::vector<std::size_t> start(per_class.size() + 1, 0);
    for (std::size_t k = 0; k < per_class.size(); ++k) start[k + 1] = start[k] + (per_class[k] > 1 ? per_class[k] : 0);
    work.own.resize(used);
    work.place.resize(used);
    std::vector<std::size_t> next(start.begin(), start.end() - 1);
    for (std::size_t i = 0; i < used; ++i) {
        const std::size_t at = next[static_cast<std::size_t>(work.sorted[i].label)]++;
        work.own[at] = work.sorted[i].value;
        work.place[at] = i;
    }
    double sum = 0;
    for (std::size_t k = 0; k < per_class.size(); ++k) {
        const std::size_t size = start[k + 1] - start[k];
        if (size == 0) continue;
        const double* own = work.own.data() + start[k];
        const std::size_t near = std::min(neighbours, size - 1);
        double class_sum = 0;
        std::size_t tied = 0;  // samples of the class that share the value at t
        for (std::size_t t = 0, low = 0; t < size; ++t) {
            // The window low..low+near holds t and its nearest; it only moves up.
            if (t > low + near) low = t - near;
            while (low < t && low + near + 1 < size && own[low + near + 1] - own[t] < own[t] - own[low]) ++low;
            const double radius = std::max(own[t] - own[low], own[low + near] - own[t]);
            if (t == 0 || own[t] != own[t - 1])
                tied = static_cast<std::size_t>(std::upper_bound(own + t, own + size, own[t]) - (own + t));
            // At an atom the k-th neighbour lies at distance 0, and so do all `tied` (Gao et al. 2017).
            class_sum += psi[radius > 0 ? near : tied];
            class_sum -= psi[count_near(work.values, work.place[start[k] + t], radius)];
        }
        sum += class_sum - static_cast<double>(size) * psi[size];
    }
    return psi[used] + sum / static_cast<double>(used);
}

double mixed_one(const double* x, const double* y, std::size_t samples, std::size_t neighbours,
                 const std::vector<double>& psi) {
    std::vector<std::size_t> by_x(samples), by_y(samples), place_y(samples);
    std::iota(by_x.begin(), by_x.end(), std::size_t{0});
    by_y = by_x;
    std::sort(by_x.begin(), by_x.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
    std::sort(by_y.begin(), by_y.end(), [&](std::size_t a, std::size_t b) { return y[a] < y[b]; });
    std::vector<double> xs(samples), ys(samples), other(samples), nearest;
    for (std::size_t i = 0; i < samples; ++i) {
        xs[i] = x[by_x[i]];
        other[i] = y[by_x[i]];
        ys[i] = y[by_y[i]];
        place_y[by_y[i]] = i;
    }
    if (xs.front() == xs.back() || ys.front() == ys.back()) return 0;  // of one value
    double sum = 0;
    for (std::size_t i = 0; i < samples; ++i) {
        // A heap of the k smallest distances; walk outwards in x until no nearer point can come.
        nearest.clear();
        std::size_t down = i, up = i + 1;
        while (true) {
            const double below = down > 0 ? xs[i] - xs[down - 1] : INFINITY;
            const double above = up < samples ? xs[up] - xs[i] : INFINITY;
            const double gap = std::min(below, above);
            if (std::isinf(gap) || (nearest.size() == neighbours && gap >= nearest.front())) break;
            const std::size_t at = below <= above ? --down : up++;
            const double distance = std::max(gap, std::abs(other[at] - other[i]));
            if (nearest.size() < neighbours) {
                nearest.push_back(distance);
                std::push_heap(nearest.begin(), nearest.end());
            } else if (distance < nearest.front()) {
                std::pop_heap(nearest.begin(), nearest.end());
                nearest.back() = distance;
                std::push_heap(nearest.begin(), nearest.end());
            }
        }
        const double radius = nearest.front();
        std::size_t ties = neighbours;
        if (radius == 0) {
            ties = 0;
            const auto same = [&](std::size_t at) { return xs[at] == xs[i]; };
            const std::size_t last = reach_up(i, samples, same);
            for (std::size_t at = reach_down(i, same); at <= last; ++at) ties += other[at] == other[i];
        }
        sum += psi[ties] - psi[count_near(xs, i, radius)] - psi[count_near(ys, place_y[by_x[i]], radius)];
    }
    return sum / static_cast<double>(samples) + std::log(static_cast<double>(samples));
}

}  // namespace

void ross_information(const double* x, std::size_t channels, std::size_t samples, const std::int32_t* labels,
                      std::size_t classes, std::size_t neighbours, double* information, std::size_t threads) {
    threads = crew_size(threads, channels, 1);
    std::vector<std::size_t> per_class(classes, 0);
    for (std::size_t i = 0; i < samples; ++i) ++per_class[static_cast<std::size_t>(labels[i])];
    const std::vector<double> psi = digamma_table(samples);  // no class has more neighbours
    std::vector<RossScratch> scratch(threads);
    parallel_for(channels, 1, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        for (std::size_t c = begin; c < end; ++c)
            information[c] = ross_one(x + c * samples, samples, labels, per_class, neighbours, psi, scratch[worker]);
    });
}

void mixed_information(const double* x, const double* y, std::size_t channels, std::size_t samples,
                       std::size_t neighbours, double* information, std::size_t threads) {
    const std::vector<double> psi = digamma_table(samples);
    parallel_for(channels, 1, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t c = begin; c < end; ++c)
            information[c] = mixed_one(x + c * samples, y + c * samples, samples, neighbours, psi);
    });
}

}  // namespace edgeprune
