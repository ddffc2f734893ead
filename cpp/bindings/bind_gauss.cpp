// Covariance, and backward elimination by conditional Gaussian information.
#include "bindings.hpp"
#include "edgeprune/covariance.hpp"
#include "edgeprune/gauss.hpp"

using namespace edgeprune;

namespace {

template <class T>
Array<T> to_array(const std::vector<T>& values) {
    return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace

void bind_gauss(py::module_& module) {
    module.def(
        "block_moments",
        [](const py::array& x, const std::string& dtype, std::size_t first, std::size_t count,
           const Array<double>& shift, std::size_t threads) -> py::object {
            const View view = view_of(x, dtype);
            if (first > view.samples || count > view.samples - first) throw std::invalid_argument("no such samples");
            require_shape(shift, {view.channels}, "shift");
            Array<double> sums(static_cast<py::ssize_t>(view.channels)), products({view.channels, view.channels});
            double *sum = sums.mutable_data(), *product = products.mutable_data();
            const double* origin = shift.data();
            bool finite;
            {
                py::gil_scoped_release release;  // reads arrays that the caller holds; writes its own
                finite = block_moments(view, first, count, origin, sum, product, threads);
            }
            if (!finite) return py::none();
            return py::make_tuple(sums, products);
        },
        py::arg("x"), py::arg("dtype"), py::arg("first"), py::arg("count"), py::arg("shift").noconvert(),
        py::arg("threads"));

    module.def(
        "backward_elimination",
        [](const std::vector<Array<double>>& covariances, const std::vector<Array<double>>& energies,
           const std::vector<Array<std::int32_t>>& unit_of, std::size_t units, std::size_t threads) {
            if (energies.size() != covariances.size() || unit_of.size() != covariances.size())
                throw std::invalid_argument("covariances, energies and unit_of differ in length");
            std::vector<Consumer> consumers;
            for (std::size_t i = 0; i < covariances.size(); ++i) {
                const std::size_t size = static_cast<std::size_t>(unit_of[i].size());
                require_shape(covariances[i], {size, size}, "covariance");
                require_shape(energies[i], {size, size}, "energy");
                for (std::size_t c = 0; c < size; ++c) {
                    const std::int32_t unit = unit_of[i].data()[c];
                    if (unit < -1 || (unit >= 0 && static_cast<std::size_t>(unit) >= units))
                        throw std::invalid_argument("a unit is out of range");
                }
                consumers.push_back({covariances[i].data(), energies[i].data(), unit_of[i].data(), size});
            }
            Elimination result;
            {
                py::gil_scoped_release release;  // the vectors above keep every buffer alive
                result = backward_elimination(consumers, units, threads);
            }
            return py::make_tuple(to_array(result.order), to_array(result.score), to_array(result.initial));
        },
        py::arg("covariances"), py::arg("energies"), py::arg("unit_of"), py::arg("units"), py::arg("threads"));
}
