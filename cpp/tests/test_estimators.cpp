// Information from counts against closed forms; nearest neighbours and the copula against definitions.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "edgeprune/copula.hpp"
#include "edgeprune/estimators.hpp"
#include "edgeprune/jmi.hpp"
#include "edgeprune/neighbours.hpp"
#include "edgeprune/shuffle.hpp"

using namespace edgeprune;

namespace {

void binary_symmetric_channel() {
    const std::uint32_t counts[] = {900, 100, 100, 900};
    TableStatistics got;
    table_statistics(counts, 1, 2, 2, &got, 1);
    CHECK_NEAR(got.information, std::log(2.0) + 0.1 * std::log(0.1) + 0.9 * std::log(0.9), 1e-14);
    CHECK_NEAR(got.entropy, std::log(2.0), 1e-14);
    CHECK(got.samples == 2000 && got.cells == 4 && got.bins == 2 && got.classes == 2);
    CHECK(got.smallest_expected == 500);
    const std::uint32_t empty[4] = {};
    table_statistics(empty, 1, 2, 2, &got, 1);
    CHECK(got.samples == 0 && got.information == 0);
}

void large_counts_do_not_overflow() {
    const std::uint32_t counts[] = {4000000000u, 0, 0, 4000000000u};  // beyond the table of n ln n
    TableStatistics got;
    table_statistics(counts, 1, 2, 2, &got, 1);
    CHECK_NEAR(got.information, std::log(2.0), 1e-12);
    CHECK(got.samples == 8e9);
    // One column beyond 32 bits, whose sum would wrap to 4 and pass for one that the small table holds.
    const std::uint32_t wide[] = {0x80000002u, 0x80000002u, 5000, 0};
    table_statistics(wide, 1, 2, 2, &got, 1);
    CHECK(got.samples == 4294967300.0 + 5000 && got.cells == 3);
    CHECK(got.information > 0 && got.information < 1e-4);
}

// Estimates of several channels, each by itself on one thread and all on three.
template <class Estimate>
void same_on_every_number_of_threads(std::size_t channels, Estimate&& estimate) {
    std::vector<double> one(channels), three(channels);
    estimate(one.data(), 1);
    estimate(three.data(), 3);
    CHECK(one == three);
    CHECK(*std::max_element(one.begin(), one.end()) > *std::min_element(one.begin(), one.end()));
}

void estimates_do_not_depend_on_threads() {
    const std::size_t channels = 19, samples = 240, classes = 4, bins = 6;
    Random random;
    std::vector<double> x(channels * samples), y(x.size());
    std::vector<std::int32_t> label(samples);
    std::vector<std::uint32_t> counts(channels * classes * bins);
    for (std::size_t s = 0; s < samples; ++s) label[s] = static_cast<std::int32_t>(random.next() % classes);
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t s = 0; s < samples; ++s) {
            const double shift = static_cast<double>(label[s]) * static_cast<double>(c) / 20;
            x[c * samples + s] = std::max(random.normal() + shift, c % 3 == 0 ? 0.0 : -1e9);  // some with an atom
            y[c * samples + s] = x[c * samples + s] + random.normal();
            const double code = std::clamp(x[c * samples + s] + 2, 0.0, 5.0);
            ++counts[(c * classes + static_cast<std::size_t>(label[s])) * bins + static_cast<std::size_t>(code)];
        }
    same_on_every_number_of_threads(channels, [&](double* out, std::size_t threads) {
        ross_information(x.data(), channels, samples, label.data(), classes, 3, out, threads);
    });
    same_on_every_number_of_threads(channels, [&](double* out, std::size_t threads) {
        mixed_information(x.data(), y.data(), channels, samples, 4, out, threads);
    });
    same_on_every_number_of_threads(channels, [&](double* out, std::size_t threads) {
        shuffled_information(counts.data(), channels, classes, bins, out, threads);
    });
    same_on_every_number_of_threads(channels, [&](double* out, std::size_t threads) {
        permutation_p_values(counts.data(), channels, classes, bins, 99, 5, out, threads);
    });
    same_on_every_number_of_threads(channels * samples, [&](double* out, std::size_t threads) {
        std::vector<double> spread(channels * samples);
        normal_scores(x.data(), channels, samples, 0, out, spread.data(), threads);
        for (std::size_t i = 0; i < spread.size(); ++i) out[i] += 100 * spread[i];
    });
}

void scores_that_tie_know_what_breaking_the_tie_would_give() {
    const double x[] = {3, 1, 1, 2};
    double z[4], spread[4];
    normal_scores(x, 1, 4, 0, z, spread, 1);
    const double low = normal_quantile(0.2), high = normal_quantile(0.4);
    CHECK_NEAR(spread[1], ((low - z[1]) * (low - z[1]) + (high - z[1]) * (high - z[1])) / 2, 1e-15);
    CHECK(spread[2] == spread[1] && spread[0] == 0 && spread[3] == 0);
}

// Pairs against a table counted cell by cell: classes of few samples and of many are counted in two ways.
void pairs_equal_their_tables(std::size_t classes, std::size_t bins) {
    const std::size_t channels = 7, samples = 3000;
    Random random;
    std::vector<std::uint8_t> codes(channels * samples);
    std::vector<std::int32_t> label(samples);
    for (std::size_t s = 0; s < samples; ++s) {  // class 0 has half of the samples
        label[s] = static_cast<std::int32_t>(s % 2 ? random.next() % classes : 0);
        for (std::size_t c = 0; c < channels; ++c)
            codes[c * samples + s] = static_cast<std::uint8_t>(
                (random.next() % bins + static_cast<std::size_t>(label[s]) * c) % bins);
    }
    const Labels labels{label.data(), samples, classes};
    for (const bool correct : {false, true})
        for (const std::size_t threads : {std::size_t{1}, std::size_t{3}})
            for (const std::size_t other : {std::size_t{0}, std::size_t{5}}) {
                std::vector<double> got(channels);
                joint_information(codes.data(), channels, bins, labels, other, correct, got.data(), threads);
                for (std::size_t c = 0; c < channels; ++c) {
                    std::vector<std::uint32_t> table(classes * bins * bins);
                    for (std::size_t s = 0; s < samples; ++s)
                        ++table[(static_cast<std::size_t>(label[s]) * bins + codes[other * samples + s]) * bins +
                                codes[c * samples + s]];
                    TableStatistics expected;
                    table_statistics(table.data(), 1, classes, bins * bins, &expected, 1);
                    const double bias = (expected.cells - expected.bins - expected.classes + 1) / (2 * expected.samples);
                    CHECK_NEAR(got[c], expected.information - (correct ? bias : 0), 1e-13);
                }
            }
}

void shuffled_expectation_of_a_two_by_two_table() {
    // Margins (2, 2) x (2, 2): n_11 is 0, 1, 2 with probability 1/6, 4/6, 1/6; I is log 2, 0, log 2.
    const std::uint32_t counts[] = {2, 0, 0, 2};
    double got = 0;
    shuffled_information(counts, 1, 2, 2, &got, 1);
    CHECK_NEAR(got, std::log(2.0) / 3, 1e-14);
    double p = 0;
    permutation_p_values(counts, 1, 2, 2, 20000, 7, &p, 1);
    CHECK_NEAR(p, 1.0 / 3, 0.015);
}

void ross_and_mixed_by_hand() {
    // Two far classes of three: k = 2, m = 3 for ends and for the middle with radius to the far neighbour.
    const double x[] = {0, 1, 2, 100, 101, 102};
    const std::int32_t y[] = {0, 0, 0, 1, 1, 1};
    double got = 0;
    ross_information(x, 1, 6, y, 2, 2, &got, 1);
    // psi(6) + psi(2) - psi(3) - mean psi(m); m: ends 2 (self and one strictly nearer), middle 1.
    const auto psi = [](int n) {
        double sum = -0.57721566490153286;
        for (int i = 1; i < n; ++i) sum += 1.0 / i;
        return sum;
    };
    CHECK_NEAR(got, psi(6) + psi(2) - psi(3) - (2 * psi(2) + psi(1)) / 3, 1e-13);
    const double same[] = {1, 1, 1, 2, 2, 2};
    mixed_information(same, same, 1, 6, 2, &got, 1);  // atoms: psi(3) + log 6 - 2 psi(3)
    CHECK_NEAR(got, std::log(6.0) - psi(3), 1e-13);
}

void normal_quantiles() {
    CHECK_NEAR(normal_quantile(0.5), 0, 0);
    CHECK_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-14);
    CHECK_NEAR(normal_quantile(1e-20), -9.262340089798408, 1e-13);
    const double x[] = {3, 1, 1, 2};
    double z[4];
    normal_scores(x, 1, 4, 0, z, nullptr, 1);
    CHECK(z[1] == z[2]);
    CHECK_NEAR(z[1], normal_quantile(0.3), 1e-15);
    CHECK_NEAR(z[0], normal_quantile(0.8), 1e-15);
    normal_scores(x, 1, 4, 0.5, z, nullptr, 1);
    CHECK_NEAR(z[1], normal_quantile(0.25), 1e-15);
    CHECK_NEAR(z[0], normal_quantile(0.875), 1e-15);
    CHECK(throws<std::invalid_argument>([&] { normal_scores(x, 1, 4, 0.6, z, nullptr, 1); }));
}

void selection_prefers_news_to_a_twin() {
    // y = a + 2b: a, its twin, and b. After one of the twins, b adds a bit and the twin nothing.
    std::vector<std::uint8_t> codes(3 * 400);
    std::vector<std::int32_t> y(400);
    for (std::size_t s = 0; s < 400; ++s) {
        codes[s] = codes[400 + s] = static_cast<std::uint8_t>(s % 2);
        codes[800 + s] = static_cast<std::uint8_t>(s / 2 % 2);
        y[s] = static_cast<std::int32_t>(s % 4);
    }
    const double nothing[3] = {}, first[3] = {0, 0, 1}, later[3] = {0, 3, 0};
    const bool all[3] = {true, true, true}, two[3] = {true, false, true};
    const Labels labels{y.data(), 400, 4};
    const auto select = [&](const std::vector<const std::uint8_t*>& sources, std::size_t bins, std::size_t choose,
                            const Goal& goal, const bool* candidates, std::size_t threads) {
        return jmi_selection(sources, 3, bins, labels, choose, goal, candidates, false, threads);
    };
    for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
        const Selection got = select({codes.data()}, 2, 3, {1, nothing, nothing}, all, threads);
        CHECK(got.order == (std::vector<std::int64_t>{0, 2, 1}));
        CHECK_NEAR(got.score[0], std::log(2.0), 1e-12);
        CHECK_NEAR(got.score[1], std::log(4.0), 1e-12);
        // What is added at first decides the first choice, what is added later the others.
        CHECK(select({codes.data()}, 2, 3, {1, first, later}, all, threads).order ==
              (std::vector<std::int64_t>{2, 1, 0}));
        CHECK(select({codes.data()}, 2, 2, {1, nothing, later}, two, threads).order ==
              (std::vector<std::int64_t>{0, 2}));
    }
    // At a second source all three say nothing: the mean is half.
    const std::vector<std::uint8_t> mute(3 * 400, 1);
    const Selection half = select({codes.data(), mute.data()}, 2, 2, {1, nothing, nothing}, all, 1);
    CHECK(half.order == (std::vector<std::int64_t>{0, 2}));
    CHECK_NEAR(half.score[1], std::log(2.0), 1e-12);
    const Goal plain{1, nothing, nothing};
    CHECK(throws<std::invalid_argument>([&] { select({codes.data()}, 1, 1, plain, all, 1); }));
    CHECK(throws<std::invalid_argument>([&] { select({codes.data()}, 17, 1, plain, all, 1); }));
    CHECK(throws<std::invalid_argument>([&] { select({codes.data()}, 2, 3, plain, two, 1); }));
    CHECK(throws<std::invalid_argument>([&] { select({}, 2, 1, plain, all, 1); }));
}

}  // namespace

int main() {
    binary_symmetric_channel();
    large_counts_do_not_overflow();
    estimates_do_not_depend_on_threads();
    scores_that_tie_know_what_breaking_the_tie_would_give();
    for (const std::size_t classes : {1, 4, 900}) {
        pairs_equal_their_tables(classes, 8);
        pairs_equal_their_tables(classes, 16);
    }
    shuffled_expectation_of_a_two_by_two_table();
    ross_and_mixed_by_hand();
    normal_quantiles();
    selection_prefers_news_to_a_twin();
    return finish();
}
