// Nearest-neighbour estimators, for reference: they need all samples at once and do not merge.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeprune {

// Ross (2014), I between a continuous channel and a label, exact in one dimension by sorting:
//     psi(N) + <psi(k)> - <psi(N_y)> - <psi(m)>,
// m counting the samples strictly nearer than the k-th neighbour of the same class, the sample itself
// included. Classes of one sample are left out; smaller classes use all their neighbours. As
// sklearn.feature_selection.mutual_info_classif, without its noise and its clipping. Where that neighbour has the
// sample's own value, k and m count all samples of that value, the sample itself included (Gao et al. 2017).
// x (channels, samples); information (channels), 0 where no class has two samples or all have one value.
void ross_information(const double* x, std::size_t channels, std::size_t samples, const std::int32_t* labels,
                      std::size_t classes, std::size_t neighbours, double* information, std::size_t threads);

// Gao, Kannan, Oh & Viswanath (2017), I between two real variables of any mixture of continuous parts and
// atoms: <psi(k_i) + log N - psi(n_x) - psi(n_y)>; 0 where x or y has one value. x and y (channels, samples).
// O(N^1.5) where values differ.
void mixed_information(const double* x, const double* y, std::size_t channels, std::size_t samples,
                       std::size_t neighbours, double* information, std::size_t threads);

}  // namespace edgeprune
