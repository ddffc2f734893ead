// Rank-normalised data, for the Gaussian copula.
#pragma once

#include <cstddef>

namespace edgeprune {

// Quantile of the standard normal distribution, 0 < p < 1, to about 1e-16 (Wichura 1988, AS 241).
double normal_quantile(double p);

// scores[c, s] = normal_quantile((rank - offset) / (samples + 1 - 2 * offset)), ties sharing their mean rank.
// x and scores (channels, samples); 0 <= offset <= 1/2.
void normal_scores(const double* x, std::size_t channels, std::size_t samples, double offset, double* scores,
                   std::size_t threads);

}  // namespace edgeprune
