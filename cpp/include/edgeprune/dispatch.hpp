// Which instruction set the inner loops use.
#pragma once

#include <string>
#include <vector>

namespace edgeprune {

std::string simd_name();                  // "scalar", "avx2" or "neon"
std::vector<std::string> simd_available();  // what this build has and this processor can run
void simd_select(const std::string& name);  // one of the above, or "auto"; throws invalid_argument

}  // namespace edgeprune
