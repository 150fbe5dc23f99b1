// Random generators of the devices: not the numbers that the CPU draws from the same seed.
#pragma once

#include <ATen/core/Generator.h>

namespace sim {

at::Generator& default_generator(int device);
at::Generator new_generator(int device);
// The CPU's generator that draws for it.
at::Generator cpu_generator_of(const at::Generator& generator);

}  // namespace sim
