// Selection by joint mutual information.
#include "bindings.hpp"
#include "edgeprune/jmi.hpp"

using namespace edgeprune;

void bind_jmi(py::module_& module) {
    module.def(
        "jmi_selection",
        [](const Array<std::uint8_t>& codes, std::size_t bins, const Array<std::int32_t>& labels, std::size_t classes,
           std::size_t choose, double theta, const Array<double>& entropy, bool correct, std::size_t threads) {
            if (codes.ndim() != 2) throw std::invalid_argument("codes must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(codes.shape(0));
            const Labels checked = labels_of(labels, classes, static_cast<std::size_t>(codes.shape(1)));
            require_shape(entropy, {channels}, "entropy");
            const std::uint8_t* in = codes.data();
            const double* h = entropy.data();
            Selection result;
            {
                py::gil_scoped_release release;  // reads arrays that the caller holds
                result = jmi_selection(in, channels, bins, checked, choose, theta, h, correct, threads);
            }
            Array<std::int64_t> order(static_cast<py::ssize_t>(result.order.size()), result.order.data());
            Array<double> score(static_cast<py::ssize_t>(result.score.size()), result.score.data());
            return py::make_tuple(order, score);
        },
        py::arg("codes").noconvert(), py::arg("bins"), py::arg("labels").noconvert(), py::arg("classes"),
        py::arg("choose"), py::arg("theta"), py::arg("entropy").noconvert(), py::arg("correct"), py::arg("threads"));

    module.def(
        "joint_information",
        [](const Array<std::uint8_t>& codes, std::size_t bins, const Array<std::int32_t>& labels, std::size_t classes,
           std::size_t other, bool correct, std::size_t threads) {
            if (codes.ndim() != 2) throw std::invalid_argument("codes must be (channels, samples)");
            const std::size_t channels = static_cast<std::size_t>(codes.shape(0));
            const Labels checked = labels_of(labels, classes, static_cast<std::size_t>(codes.shape(1)));
            Array<double> out(static_cast<py::ssize_t>(channels));
            double* values = out.mutable_data();
            const std::uint8_t* in = codes.data();
            {
                py::gil_scoped_release release;  // as above
                joint_information(in, channels, bins, checked, other, correct, values, threads);
            }
            return out;
        },
        py::arg("codes").noconvert(), py::arg("bins"), py::arg("labels").noconvert(), py::arg("classes"),
        py::arg("other"), py::arg("correct"), py::arg("threads"));
}
