// Moments, elimination and per-edge tables: closed forms, and the same bits on every set and thread count.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "edgeprune/covariance.hpp"
#include "edgeprune/edge.hpp"
#include "edgeprune/estimators.hpp"
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

// Tables of many classes are summed in another way than those of few: both against a re-binning of the counts,
// and both on several threads.
void edge_tables_of_many_channels_are_those_of_their_counts(std::size_t classes) {
    const std::size_t n = 3000, channels = 35, cells = 512;
    Random random;
    std::vector<float> x(n * channels), ranges(channels);
    std::vector<std::int32_t> y(n);
    for (std::size_t s = 0; s < n; ++s) {
        y[s] = static_cast<std::int32_t>(s % 3 ? random.next() % classes : 1);  // one class has a third
        for (std::size_t c = 0; c < channels; ++c)
            x[s * channels + c] = static_cast<float>(random.normal() + 0.01 * static_cast<double>(c) * y[s]);
    }
    const View view{x.data(), Dtype::float32, n, channels, static_cast<std::ptrdiff_t>(4 * channels), 4};
    std::vector<double> information[2], entropy[2];
    std::vector<std::uint32_t> counts;
    for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
        counts.assign(channels * classes * cells, 0);
        CHECK(find_ranges(view, ranges.data(), threads));
        CHECK(add_fine_counts(view, ranges.data(), cells, {y.data(), n, classes}, counts.data(), threads));
        information[threads / 2].resize(channels * edge_steps);
        entropy[threads / 2].resize(channels * edge_steps);
        edge_tables(counts.data(), channels, classes, cells, information[threads / 2].data(),
                    entropy[threads / 2].data(), threads);
    }
    CHECK(information[0] == information[1] && entropy[0] == entropy[1]);
    // One step in the middle, its bins summed by hand.
    const std::size_t s = 150, c = channels - 1;
    const double half = cells / 2.0, step = half / 127 * std::pow(254.0, static_cast<double>(s) / (edge_steps - 1));
    std::vector<std::uint32_t> table;
    double low = 0;
    for (long bin = -static_cast<long>(half / step + 0.5); low < cells; ++bin) {
        const double high = std::min(std::nearbyint((static_cast<double>(bin) + 0.5) * step + half), cells * 1.0);
        for (std::size_t k = 0; k < classes; ++k) {
            std::uint32_t sum = 0;
            for (std::size_t cell = static_cast<std::size_t>(low); cell < static_cast<std::size_t>(high); ++cell)
                sum += counts[(c * classes + k) * cells + cell];
            table.push_back(sum);
        }
        low = high;
    }
    TableStatistics expected;  // classes and bins have changed places
    table_statistics(table.data(), 1, table.size() / classes, classes, &expected, 1);
    const double bias = (expected.cells - expected.bins - expected.classes + 1) / (2 * expected.samples);
    CHECK_NEAR(information[0][c * edge_steps + s], expected.information - bias, 1e-12);
    CHECK_NEAR(entropy[0][c * edge_steps + s], expected.class_entropy + (expected.classes - 1) / (2.0 * n), 1e-12);
}

void moments_of_doubles_lose_nothing_to_an_offset() {
    const std::size_t n = 256, c = 3;
    std::vector<double> x(n * c), shift(c, 1e8), sums(c), products(c * c);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1e8 + static_cast<double>(i % 7) / 8;  // exact in a double
    double square = 0;
    for (std::size_t s = 0; s < n; ++s) square += (x[s * c] - 1e8) * (x[s * c] - 1e8);
    const View view{x.data(), Dtype::float64, n, c, static_cast<std::ptrdiff_t>(8 * c), 8};
    on_every_set([&] {
        CHECK(block_moments(view, 0, n, shift.data(), sums.data(), products.data(), 2));
        CHECK(products[0] == square);
    });
    x[100] = 1e39;  // infinite as float32, as everywhere else
    CHECK(!block_moments(view, 0, n, shift.data(), sums.data(), products.data(), 1));
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
    CHECK(crew_size(8, 100, 30) == 4 && crew_size(2, 100, 30) == 2 && crew_size(5, 0, 4) == 1);
    CHECK(fair_block(64, 2, 64) == 32 && fair_block(4096, 2, 512) == 512 && fair_block(3, 8, 64) == 16);
}

}  // namespace

int main() {
    independent_inputs_follow_the_closed_form();
    elimination_is_the_same_on_every_set_and_thread_count();
    moments_are_exact_and_the_same_everywhere();
    edge_tables_end_where_they_should();
    edge_tables_of_many_channels_are_those_of_their_counts(4);
    edge_tables_of_many_channels_are_those_of_their_counts(300);
    moments_of_doubles_lose_nothing_to_an_offset();
    a_loop_visits_every_item_once_and_hands_on_exceptions();
    return finish();
}
