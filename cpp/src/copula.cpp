#include "edgeprune/copula.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

template <std::size_t n>
double polynomial(const double (&coefficients)[n], double x) {
    double value = coefficients[n - 1];
    for (std::size_t i = n - 1; i-- > 0;) value = value * x + coefficients[i];
    return value;
}

}  // namespace

double normal_quantile(double p) {
    static constexpr double a[] = {3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427,
                                   13731.693765509461125, 45921.953931549871457, 67265.770927008700853,
                                   33430.575583588128105, 2509.0809287301226727};
    static constexpr double b[] = {1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
                                   21213.794301586595867, 39307.895800092710610, 28729.085735721942674,
                                   5226.4952788528545610};
    static constexpr double c[] = {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
                                   3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
                                   0.0227238449892691845833, 7.74545014278341407640e-4};
    static constexpr double d[] = {1.0, 2.05319162663775882187, 1.67638483018380384940,
                                   0.689767334985100004550, 0.148103976427480074590, 0.0151986665636164571966,
                                   5.47593808499534494600e-4, 1.05075007164441684324e-9};
    static constexpr double e[] = {6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
                                   0.296560571828504891230, 0.0265321895265761230930, 0.00124266094738807843860,
                                   2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static constexpr double f[] = {1.0, 0.599832206555887937690, 0.136929880922735805310,
                                   0.0148753612908506148525, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
                                   1.42151175831644588870e-7, 2.04426310338993978564e-15};
    const double q = p - 0.5;
    if (std::abs(q) <= 0.425) {
        const double r = 0.180625 - q * q;
        return q * polynomial(a, r) / polynomial(b, r);
    }
    double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
    double value;
    if (r <= 5) {
        r -= 1.6;
        value = polynomial(c, r) / polynomial(d, r);
    } else {
        r -= 5;
        value = polynomial(e, r) / polynomial(f, r);
    }
    return q < 0 ? -value : value;
}

void normal_scores(const double* x, std::size_t channels, std::size_t samples, double offset, double* scores,
                   double* spread, std::size_t threads) {
    if (!(offset >= 0 && offset <= 0.5)) throw std::invalid_argument("offset must be 0..1/2");
    std::vector<double> quantile(2 * samples + 1);  // by twice the mean rank
    const double whole = static_cast<double>(2 * (samples + 1)) - 4 * offset;
    for (std::size_t twice = 2; twice <= 2 * samples; ++twice)
        quantile[twice] = normal_quantile((static_cast<double>(twice) - 2 * offset) / whole);
    parallel_for(channels, 1, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        std::vector<std::size_t> order(samples);
        for (std::size_t channel = begin; channel < end; ++channel) {
            const double* own = x + channel * samples;
            std::iota(order.begin(), order.end(), std::size_t{0});
            std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return own[i] < own[j]; });
            for (std::size_t first = 0; first < samples;) {
                std::size_t last = first;
                while (last + 1 < samples && own[order[last + 1]] == own[order[first]]) ++last;
                const double score = quantile[first + last + 2];  // ranks count from one
                double squares = 0;
                for (std::size_t i = first; i <= last; ++i) {
                    scores[channel * samples + order[i]] = score;
                    squares += (quantile[2 * i + 2] - score) * (quantile[2 * i + 2] - score);
                }
                if (spread != nullptr)
                    for (std::size_t i = first; i <= last; ++i)
                        spread[channel * samples + order[i]] = squares / static_cast<double>(last - first + 1);
                first = last + 1;
            }
        }
    });
}

}  // namespace edgeprune
