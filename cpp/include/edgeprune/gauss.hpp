// Backward elimination by conditional Gaussian information.
//
// Each consumer reads `size` inputs with covariance S and weights W; `energy` is W^T diag(1/tau^2) W.
// With P the inverse of S restricted to what remains, removing the inputs B of one unit costs
//     sum over consumers of 1/2 log(1 + tr(G_BB inv(P_BB)))
// nats, where inv(P_BB) is the covariance of B given the rest and G is the energy of the weights
// after they absorbed every removal so far. Both follow by exact Schur downdates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgeprune {

struct Consumer {
    const double* covariance = nullptr;  // (size, size)
    const double* energy = nullptr;      // (size, size)
    const std::int32_t* unit = nullptr;  // (size): the unit an input belongs to, or -1: never removed
    std::size_t size = 0;
};

struct Elimination {
    std::vector<std::int64_t> order;  // units, first removed first
    std::vector<double> score;        // nats when it was removed, by unit
    std::vector<double> initial;      // nats while everything is there, by unit
};

// Throws invalid_argument when a covariance is not positive definite (the message names the consumer).
Elimination backward_elimination(const std::vector<Consumer>& consumers, std::size_t units, std::size_t threads);

}  // namespace edgeprune
