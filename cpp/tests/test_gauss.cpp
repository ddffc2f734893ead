// Moments, elimination and per-edge tables: closed forms, and the same bits on every set and thread count.
#include <cstring>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "edgeprune/covariance.hpp"
#include "edgeprune/edge.hpp"
#include "edgeprune/gauss.hpp"
#include "edgeprune/parallel.hpp"

using namespace edgeprune;

namespace {

std::vector<double> covariance_like(std::size_t n) {
    Random random;
    std::vector<double> a(2 * n * n), s(n * n, 0.0);
    for (double& v : a) v = random.normal();
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = 0; c < n; ++c) {
            for (std::size_t k = 0; k < 2 * n; ++k) s[r * n + c] += a[k * n + r] * a[k * n + c];
            if (r == c) s[r * n + c] += 1;
        }
    return s;
}

void independent_inputs_follow_the_closed_form() {
    const std::size_t n = 5;
    const double variance[] = {4, 1, 9, 0.25, 2}, energy[] = {1, 3, 0.1, 2, 0.5};
    std::vector<double> s(n * n, 0.0), g(n * n, 0.0);
    std::vector<std::int32_t> unit(n);
    for (std::size_t i = 0; i < n; ++i) {
        s[i * n + i] = variance[i];
        g[i * n + i] = energy[i];
        unit[i] = static_cast<std::int32_t>(i);
    }
    const Elimination got = backward_elimination({{s.data(), g.data(), unit.data(), n}}, n, 1);
    for (std::size_t i = 0; i < n; ++i) {
        CHECK_NEAR(got.score[i], 0.5 * std::log1p(variance[i] * energy[i]), 1e-14);
        CHECK_NEAR(got.initial[i], got.score[i], 1e-14);
    }
    CHECK(got.order == (std::vector<std::int64_t>{3, 2, 4, 1, 0}));
    s[0] = -1;
    CHECK(throws<std::invalid_argument>([&] { backward_elimination({{s.data(), g.data(), unit.data(), n}}, n, 1); }));
}

void elimination_is_the_same_on_every_set_and_thread_count() {
    const std::size_t n = 173;  // several windows of gathered removals, and a padded last tile
    const std::vector<double> s = covariance_like(n), g = covariance_like(n);
    std::vector<std::int32_t> unit(n);
    for (std::size_t i = 0; i < n; ++i) unit[i] = static_cast<std::int32_t>(i % 7 == 0 ? -1 : static_cast<int>(i / 2));
    Elimination first;
    bool have = false;
    on_every_set([&] {
        for (const std::size_t threads : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
            const Elimination got = backward_elimination({{s.data(), g.data(), unit.data(), n}}, 90, threads);
            if (have) {
                CHECK(got.order == first.order);
                CHECK(std::memcmp(got.score.data(), first.score.data(), 90 * sizeof(double)) == 0);
            }
            first = got;
            have = true;
        }
    });
    CHECK(first.order.size() == 90);
}

void moments_are_exact_and_the_same_everywhere() {
    const std::size_t n = 300, c = 21;
    std::vector<float> x(n * c);
    Random random;
    for (float& v : x) v = static_cast<float>(static_cast<int>(random.next() % 41) - 20);  // sums are exact
    const View view{x.data(), Dtype::float32, n, c, static_cast<std::ptrdiff_t>(4 * c), 4};
    std::vector<double> shift(c, 3.0), sums(c), products(c * c), expected(c * c, 0.0);
    for (std::size_t s = 10; s < 210; ++s)
        for (std::size_t i = 0; i < c; ++i)
            for (std::size_t j = 0; j < c; ++j) expected[i * c + j] += (x[s * c + i] - 3.0) * (x[s * c + j] - 3.0);
    on_every_set([&] {
        CHECK(block_moments(view, 10, 200, shift.data(), sums.data(), products.data(), 2));
        CHECK(products == expected);
    });
}

void edge_tables_end_where_they_should() {
    // x is the label itself: the finest step tells all classes apart, the coarsest none.
    const std::size_t n = 4000;
    std::vector<float> x(n);
    std::vector<std::int32_t> y(n);
    for (std::size_t s = 0; s < n; ++s) {
        y[s] = static_cast<std::int32_t>(s % 4);
        x[s] = static_cast<float>(y[s]) - 1.5f;
    }
    const View view{x.data(), Dtype::float32, n, 1, 4, 4};
    float range = 0;
    CHECK(find_ranges(view, &range, 1));
    CHECK(range == 1.5f);
    std::vector<std::uint32_t> counts(4 * 4096);
    CHECK(add_fine_counts(view, &range, 4096, {y.data(), n, 4}, counts.data(), 1));
    std::vector<double> information(edge_steps), entropy(edge_steps);
    edge_tables(counts.data(), 1, 4, 4096, information.data(), entropy.data(), 1);
    CHECK_NEAR(information[0], std::log(4.0), 1e-3);
    CHECK_NEAR(entropy[0], std::log(4.0), 1e-3);
    CHECK_NEAR(information[edge_steps - 1], 0, 1e-12);
    const float weights[] = {1, 0, 1e-6f, -1, 1e6f}, steps[] = {0.01f, 1, 1, 0.01f, 1};
    double scores[5];
    edge_scores(&range, information.data(), entropy.data(), 1, weights, steps, 5, 0.0, scores, 1);
    CHECK_NEAR(scores[0], std::log(4.0), 1e-3);
    CHECK(scores[1] == 0 && scores[2] == 0);
    CHECK(scores[3] == scores[0]);
    CHECK(scores[4] == information[0]);
    CHECK(throws<std::invalid_argument>([&] { add_fine_counts(view, &range, 3, {y.data(), n, 4}, counts.data(), 1); }));
}

void a_loop_visits_every_item_once_and_hands_on_exceptions() {
    for (const std::size_t threads : {std::size_t{1}, std::size_t{4}}) {
        std::vector<int> seen(1000, 0);
        parallel_for(1000, 7, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
            for (std::size_t i = begin; i < end; ++i) ++seen[i];
        });
        CHECK(seen == std::vector<int>(1000, 1));
        CHECK(throws<std::domain_error>([&] {
            parallel_for(1000, 1, threads, [](std::size_t begin, std::size_t, std::size_t) {
                if (begin < 500) throw std::domain_error("stop");
            });
        }));
    }
    CHECK(resolve_threads(3) == 3 && resolve_threads(0) >= 1);
}

}  // namespace

int main() {
    independent_inputs_follow_the_closed_form();
    elimination_is_the_same_on_every_set_and_thread_count();
    moments_are_exact_and_the_same_everywhere();
    edge_tables_end_where_they_should();
    a_loop_visits_every_item_once_and_hands_on_exceptions();
    return finish();
}
