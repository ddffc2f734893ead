// Estimators that need all samples at once: nearest neighbours and the Gaussian copula.
#include "bindings.hpp"
#include "edgeprune/copula.hpp"
#include "edgeprune/neighbours.hpp"

using namespace edgeprune;

void bind_reference(py::module_& module) {
    module.def(
        "ross_information",
        [](const Array<double>& x, const Array<std::int32_t>& labels, std::size_t classes, std::size_t neighbours,
           std::size_t threads) {
            if (x.ndim() != 2) throw std::invalid_argument("x must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(x.shape(0));
            const Labels checked = labels_of(labels, classes, static_cast<std::size_t>(x.shape(1)));
            if (neighbours == 0) throw std::invalid_argument("neighbours must be positive");
            Array<double> out(static_cast<py::ssize_t>(channels));
            double* values = out.mutable_data();
            const double* in = x.data();
            {
                py::gil_scoped_release release;  // reads arrays that the caller holds; writes `out` alone
                ross_information(in, channels, checked.count, checked.data, classes, neighbours, values, threads);
            }
            return out;
        },
        py::arg("x").noconvert(), py::arg("labels").noconvert(), py::arg("classes"), py::arg("neighbours"),
        py::arg("threads"));

    module.def(
        "mixed_information",
        [](const Array<double>& x, const Array<double>& y, std::size_t neighbours, std::size_t threads) {
            if (x.ndim() != 2) throw std::invalid_argument("x must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(x.shape(0));
            const std::size_t samples = static_cast<std::size_t>(x.shape(1));
            require_shape(y, {channels, samples}, "y");
            if (neighbours == 0 || neighbours >= samples) throw std::invalid_argument("neighbours must be 1..samples-1");
            Array<double> out(static_cast<py::ssize_t>(channels));
            double* values = out.mutable_data();
            const double *x_in = x.data(), *y_in = y.data();
            {
                py::gil_scoped_release release;  // as above
                mixed_information(x_in, y_in, channels, samples, neighbours, values, threads);
            }
            return out;
        },
        py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("neighbours"), py::arg("threads"));

    // Scores, and the spread that ties hide where it is asked for, else nothing.
    module.def(
        "normal_scores",
        [](const Array<double>& x, double offset, bool with_spread, std::size_t threads) {
            if (x.ndim() != 2) throw std::invalid_argument("x must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(x.shape(0));
            const std::size_t samples = static_cast<std::size_t>(x.shape(1));
            Array<double> out({channels, samples}), spread({with_spread ? channels : std::size_t{0}, samples});
            double* values = out.mutable_data();
            double* hidden = with_spread ? spread.mutable_data() : nullptr;
            const double* in = x.data();
            {
                py::gil_scoped_release release;  // as above
                normal_scores(in, channels, samples, offset, values, hidden, threads);
            }
            return py::make_tuple(out, spread);
        },
        py::arg("x").noconvert(), py::arg("offset"), py::arg("spread"), py::arg("threads"));
}
