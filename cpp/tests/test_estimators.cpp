// Information from counts against closed forms; nearest neighbours and the copula against definitions.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "edgeprune/copula.hpp"
#include "edgeprune/estimators.hpp"
#include "edgeprune/jmi.hpp"
#include "edgeprune/neighbours.hpp"

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
    normal_scores(x, 1, 4, z, 1);
    CHECK(z[1] == z[2]);
    CHECK_NEAR(z[1], normal_quantile(0.3), 1e-15);
    CHECK_NEAR(z[0], normal_quantile(0.8), 1e-15);
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
    const double entropy[3] = {};
    for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
        const Selection got = jmi_selection(codes.data(), 3, 2, {y.data(), 400, 4}, 3, 0, entropy, false, threads);
        CHECK(got.order == (std::vector<std::int64_t>{0, 2, 1}));
        CHECK_NEAR(got.score[0], std::log(2.0), 1e-12);
        CHECK_NEAR(got.score[1], std::log(4.0), 1e-12);
    }
    CHECK(throws<std::invalid_argument>(
        [&] { jmi_selection(codes.data(), 3, 1, {y.data(), 400, 4}, 1, 0, entropy, false, 1); }));
    CHECK(throws<std::invalid_argument>(
        [&] { jmi_selection(codes.data(), 3, 17, {y.data(), 400, 4}, 1, 0, entropy, false, 1); }));
}

}  // namespace

int main() {
    binary_symmetric_channel();
    large_counts_do_not_overflow();
    shuffled_expectation_of_a_two_by_two_table();
    ross_and_mixed_by_hand();
    normal_quantiles();
    selection_prefers_news_to_a_twin();
    return finish();
}
