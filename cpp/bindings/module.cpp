// Registers the bindings; each concept has its own file.
#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
    module.doc() = "The information core of edgeprune. Use edgeprune.information, which validates its input.";
    bind_counts(module);
    bind_estimators(module);
    bind_edge(module);
    bind_gauss(module);
    bind_jmi(module);
    bind_reference(module);
}
