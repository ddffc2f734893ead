#include "edgeprune/gauss.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

// What one consumer still reads. Rows are swapped with the last one on removal, so the live part
// is always the leading `live` rows and columns.
struct State {
    std::size_t size = 0, live = 0;
    std::vector<double> precision, energy;
    std::vector<std::int32_t> input;                  // position -> input
    std::vector<std::size_t> position;                // input -> position
    std::vector<std::vector<std::size_t>> members;    // unit -> inputs

    double& p(std::size_t r, std::size_t c) { return precision[r * size + c]; }
    double& g(std::size_t r, std::size_t c) { return energy[r * size + c]; }

    void remove(std::size_t channel) {
        std::size_t at = position[channel];
        const std::size_t last = live - 1;
        if (at != last) {
            for (auto* matrix : {precision.data(), energy.data()}) {
                std::swap_ranges(matrix + at * size, matrix + at * size + live, matrix + last * size);
                for (std::size_t r = 0; r < live; ++r) std::swap(matrix[r * size + at], matrix[r * size + last]);
            }
            std::swap(input[at], input[last]);
            position[static_cast<std::size_t>(input[at])] = at;
            at = last;
        }
        live = last;
        const double pivot = p(at, at);
        const double own_energy = g(at, at);
        const double* a_row = precision.data() + at * size;
        const double* g_row = energy.data() + at * size;
        for (std::size_t r = 0; r < live; ++r) {
            const double a = a_row[r] / pivot;
            const double b = g_row[r] - own_energy * a;
            double* p_out = precision.data() + r * size;
            double* g_out = energy.data() + r * size;
            for (std::size_t c = 0; c < live; ++c) {
                const double share = a_row[c] / pivot;
                p_out[c] -= a * a_row[c];
                g_out[c] -= b * share + a * g_row[c];
            }
        }
    }

    double score(std::size_t unit, std::vector<double>& scratch) {
        const auto& own = members[unit];
        if (own.empty()) return 0;
        double trace;
        if (own.size() == 1) {
            const std::size_t at = position[own[0]];
            trace = g(at, at) / p(at, at);
        } else {
            const std::size_t m = own.size();
            scratch.resize(m * m);
            for (std::size_t r = 0; r < m; ++r)
                for (std::size_t c = 0; c < m; ++c) scratch[r * m + c] = p(position[own[r]], position[own[c]]);
            if (!invert_spd(scratch.data(), m, 1)) return 0;
            trace = 0;
            for (std::size_t r = 0; r < m; ++r)
                for (std::size_t c = 0; c < m; ++c)
                    trace += g(position[own[r]], position[own[c]]) * scratch[c * m + r];
        }
        return 0.5 * std::log1p(std::max(trace, 0.0));
    }
};

}  // namespace

bool invert_spd(double* matrix, std::size_t size, std::size_t threads) {
    (void)threads;
    const std::size_t n = size;
    for (std::size_t j = 0; j < n; ++j) {  // lower Cholesky factor, row by row
        for (std::size_t i = 0; i <= j; ++i) {
            double sum = matrix[j * n + i];
            for (std::size_t k = 0; k < i; ++k) sum -= matrix[j * n + k] * matrix[i * n + k];
            if (i == j) {
                if (!(sum > 0) || !std::isfinite(sum)) return false;
                matrix[j * n + j] = std::sqrt(sum);
            } else {
                matrix[j * n + i] = sum / matrix[i * n + i];
            }
        }
    }
    std::vector<double> inverse(n * n, 0.0);  // of the factor, transposed: row c holds column c
    for (std::size_t c = 0; c < n; ++c) {
        inverse[c * n + c] = 1 / matrix[c * n + c];
        for (std::size_t r = c + 1; r < n; ++r) {
            double sum = 0;
            for (std::size_t k = c; k < r; ++k) sum -= matrix[r * n + k] * inverse[c * n + k];
            inverse[c * n + r] = sum / matrix[r * n + r];
        }
    }
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = 0; c <= r; ++c) {
            double sum = 0;
            for (std::size_t k = r; k < n; ++k) sum += inverse[r * n + k] * inverse[c * n + k];
            matrix[r * n + c] = matrix[c * n + r] = sum;
        }
    return true;
}

Elimination backward_elimination(const std::vector<Consumer>& consumers, std::size_t units, std::size_t threads) {
    std::vector<State> states(consumers.size());
    for (std::size_t i = 0; i < consumers.size(); ++i) {
        const Consumer& consumer = consumers[i];
        State& state = states[i];
        state.size = state.live = consumer.size;
        state.precision.assign(consumer.covariance, consumer.covariance + consumer.size * consumer.size);
        state.energy.assign(consumer.energy, consumer.energy + consumer.size * consumer.size);
        state.members.resize(units);
        for (std::size_t c = 0; c < consumer.size; ++c) {
            state.input.push_back(static_cast<std::int32_t>(c));
            state.position.push_back(c);
            if (consumer.unit[c] >= 0) state.members.at(static_cast<std::size_t>(consumer.unit[c])).push_back(c);
        }
        if (!invert_spd(state.precision.data(), state.size, resolve_threads(threads)))
            throw std::invalid_argument("the covariance of consumer " + std::to_string(i) + " is not positive definite");
    }
    Elimination result;
    result.score.assign(units, 0);
    std::vector<char> gone(units, 0);
    std::vector<double> scratch;
    for (std::size_t step = 0; step < units; ++step) {
        double best = std::numeric_limits<double>::infinity();
        std::size_t pick = units;
        for (std::size_t unit = 0; unit < units; ++unit) {
            if (gone[unit]) continue;
            if (pick == units) pick = unit;  // even where every score is infinite
            double total = 0;
            for (State& state : states) total += state.score(unit, scratch);
            if (step == 0) result.initial.push_back(total);
            if (total < best) {
                best = total;
                pick = unit;
            }
        }
        gone[pick] = 1;
        result.order.push_back(static_cast<std::int64_t>(pick));
        result.score[pick] = best;
        for (State& state : states)
            for (const std::size_t channel : state.members[pick]) state.remove(channel);
    }
    return result;
}

}  // namespace edgeprune
