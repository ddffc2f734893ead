// Rank-normalised data, for the Gaussian copula.
#pragma once

#include <cstddef>

namespace edgeprune {

// Quantile of the standard normal distribution, 0 < p < 1, to about 1e-16 (Wichura 1988, AS 241).
double normal_quantile(double p);

// scores[c, s] = normal_quantile((rank - offset) / (samples + 1 - 2 * offset)), ties sharing their mean rank.
// spread[c, s], unless it is null: the mean square of the scores that breaking the ties would give, about theirs; 0
// without ties. x, scores and spread (channels, samples); 0 <= offset <= 1/2.
void normal_scores(const double* x, std::size_t channels, std::size_t samples, double offset, double* scores,
                   double* spread, std::size_t threads);

}  // namespace edgeprune
