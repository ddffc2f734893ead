#include "edgeprune/gauss.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "dense.hpp"
#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {
namespace {

constexpr std::size_t window = 48;  // removals that are gathered before the matrices are touched

// A unit's own rows and columns of P and G, always up to date.
struct Own {
    std::vector<std::size_t> places;  // in the consumer's matrices
    std::vector<double> p, g;         // (members, members)
};

// What one consumer still reads. A removal is a rank-one change of P and a rank-two change of G:
//     P -= q q^T / pivot,   G -= b a^T + a g^T,   a = q / pivot,   b = g - G_pp a,
// with q and g the removed rows. Only the units' own blocks are changed at once; the vectors are kept
// and applied to the matrices together, as matrix products, and then the removed rows are dropped.
class State {
public:
    State(const Consumer& consumer, std::size_t index, std::size_t units, std::size_t threads)
        : size_(consumer.size), pitch_(padded(consumer.size)), threads_(threads), units_(units) {
        precision_.assign(consumer.covariance, consumer.covariance + size_ * size_);
        energy_.assign(consumer.energy, consumer.energy + size_ * size_);
        if (!invert_upper(precision_.data(), size_, threads))
            throw std::invalid_argument("the covariance of consumer " + std::to_string(index) +
                                        " is not positive definite");
        alive_.assign(size_, 1);
        for (std::size_t at = 0; at < size_; ++at)
            if (consumer.unit[at] >= 0) units_.at(static_cast<std::size_t>(consumer.unit[at])).places.push_back(at);
        for (Own& own : units_) {
            const std::size_t m = own.places.size();
            own.p.resize(m * m);
            own.g.resize(m * m);
            for (std::size_t i = 0; i < m; ++i)
                for (std::size_t j = 0; j < m; ++j) {
                    own.p[i * m + j] = upper(precision_, own.places[i], own.places[j]);
                    own.g[i * m + j] = upper(energy_, own.places[i], own.places[j]);
                }
        }
        for (auto* panel : {&q_, &a_, &b_, &g_}) panel->assign(window * pitch_, 0.0);
    }

    double score(std::size_t unit) {
        const Own& own = units_[unit];
        const std::size_t m = own.places.size();
        if (m == 0) return 0;
        double trace = 0;
        if (m == 1) {
            trace = own.g[0] / own.p[0];
        } else {
            block_ = own.p;
            if (!invert_small(block_.data(), m, scratch_)) return std::numeric_limits<double>::infinity();
            for (std::size_t i = 0; i < m * m; ++i) trace += own.g[i] * block_[i];  // both are symmetric
        }
        return 0.5 * std::log1p(std::max(trace, 0.0));
    }

    void remove(std::size_t unit) {
        const std::vector<std::size_t> places = units_[unit].places;
        for (std::size_t i = 0; i < places.size(); ++i) {
            if (pending_ == window) apply();
            // apply() moves places, so they are read again
            remove_place(units_[unit].places[i]);
        }
        units_[unit] = Own{};
    }

private:
    double upper(const std::vector<double>& matrix, std::size_t r, std::size_t c) const {
        return r < c ? matrix[r * size_ + c] : matrix[c * size_ + r];
    }

    void row(const std::vector<double>& matrix, std::size_t at, double* out) const {
        for (std::size_t c = 0; c < at; ++c) out[c] = matrix[c * size_ + at];
        std::copy_n(matrix.data() + at * size_ + at, size_ - at, out + at);
    }

    void remove_place(std::size_t at) {
        const auto add_scaled = kernels().add_scaled;
        double* q = q_.data() + pending_ * pitch_;
        double* a = a_.data() + pending_ * pitch_;
        double* b = b_.data() + pending_ * pitch_;
        double* g = g_.data() + pending_ * pitch_;
        row(precision_, at, q);
        row(energy_, at, g);
        for (std::size_t t = 0; t < pending_; ++t) {
            const double a_at = a_[t * pitch_ + at];
            add_scaled(-a_at, q_.data() + t * pitch_, q, size_);
            add_scaled(-b_[t * pitch_ + at], a_.data() + t * pitch_, g, size_);
            add_scaled(-a_at, g_.data() + t * pitch_, g, size_);
        }
        const double pivot = q[at];
        const double energy = g[at];
        for (std::size_t c = 0; c < size_; ++c) {
            a[c] = q[c] / pivot;
            b[c] = g[c] - energy * a[c];
        }
        for (Own& own : units_) {
            const std::size_t m = own.places.size();
            for (std::size_t i = 0; i < m; ++i)
                for (std::size_t j = 0; j < m; ++j) {
                    const std::size_t r = own.places[i], c = own.places[j];
                    own.p[i * m + j] -= a[r] * q[c];
                    own.g[i * m + j] -= b[r] * a[c] + a[r] * g[c];
                }
        }
        alive_[at] = 0;
        ++pending_;
    }

    void apply() {
        add_products(precision_.data(), size_, size_, -1, a_.data(), q_.data(), pitch_, pending_, threads_);
        add_products(energy_.data(), size_, size_, -1, b_.data(), a_.data(), pitch_, pending_, threads_);
        add_products(energy_.data(), size_, size_, -1, a_.data(), g_.data(), pitch_, pending_, threads_);
        pending_ = 0;
        std::vector<std::size_t> moved(size_, 0);
        std::vector<std::size_t> kept;
        for (std::size_t at = 0; at < size_; ++at)
            if (alive_[at]) {
                moved[at] = kept.size();
                kept.push_back(at);
            }
        const std::size_t left = kept.size();
        for (auto* matrix : {&precision_, &energy_}) {  // rows and columns only ever move towards the front
            double* to = matrix->data();
            for (std::size_t r = 0; r < left; ++r)
                for (std::size_t c = 0; c < left; ++c) to[r * left + c] = to[kept[r] * size_ + kept[c]];
        }
        for (Own& own : units_)
            for (std::size_t& place : own.places) place = moved[place];
        alive_.assign(left, 1);
        size_ = left;
    }

    std::size_t size_, pitch_, threads_;
    std::size_t pending_ = 0;
    std::vector<double> precision_, energy_;  // upper triangles, as of the last apply()
    std::vector<double> q_, a_, b_, g_;       // (window, pitch): the removals since
    std::vector<char> alive_;
    std::vector<Own> units_;
    std::vector<double> block_, scratch_;
};

}  // namespace

Elimination backward_elimination(const std::vector<Consumer>& consumers, std::size_t units, std::size_t threads) {
    const IeeeFloats ieee;
    threads = resolve_threads(threads);
    std::vector<State> states;
    states.reserve(consumers.size());
    for (std::size_t i = 0; i < consumers.size(); ++i) states.emplace_back(consumers[i], i, units, threads);
    Elimination result;
    result.score.assign(units, 0);
    std::vector<char> gone(units, 0);
    for (std::size_t step = 0; step < units; ++step) {
        double best = std::numeric_limits<double>::infinity();
        std::size_t pick = units;
        for (std::size_t unit = 0; unit < units; ++unit) {
            if (gone[unit]) continue;
            if (pick == units) pick = unit;  // even where every score is infinite
            double total = 0;
            for (State& state : states) total += state.score(unit);
            if (step == 0) result.initial.push_back(total);
            if (total < best) {
                best = total;
                pick = unit;
            }
        }
        gone[pick] = 1;
        result.order.push_back(static_cast<std::int64_t>(pick));
        result.score[pick] = best;
        for (State& state : states) state.remove(pick);
    }
    return result;
}

}  // namespace edgeprune
