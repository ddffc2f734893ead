// Greedy selection by joint mutual information (Yang & Moody 1999; Brown et al. 2012).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/counts.hpp"

namespace edgeprune {

struct Selection {
    std::vector<std::int64_t> order;  // channels, first chosen first
    std::vector<double> score;        // nats when chosen, by place in the order
};

// What a choice maximises: at first I(T_i;Y) + first[i], then
//     share * mean over chosen j of I(T_i,T_j;Y) + later[i].
struct Goal {
    double share;
    const double *first, *later;  // (channels)
};

// Each source holds codes (channels, samples) of the same channels seen at another place, all below
// bins <= 16 (checked: throws invalid_argument); information is the mean over the sources. Only channels
// whose `candidates` (channels) is set are chosen, ties going to the lowest index; Miller-Madow
// correction of every table where `correct`.
Selection jmi_selection(const std::vector<const std::uint8_t*>& sources, std::size_t channels, std::size_t bins,
                        const Labels& labels, std::size_t choose, const Goal& goal, const bool* candidates,
                        bool correct, std::size_t threads);

// information (channels): I(T_i,T_j;Y) of every channel with channel j.
void joint_information(const std::uint8_t* codes, std::size_t channels, std::size_t bins, const Labels& labels,
                       std::size_t other, bool correct, double* information, std::size_t threads);

}  // namespace edgeprune
