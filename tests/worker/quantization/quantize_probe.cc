// The bridge for comparisons with bitsandbytes: quantizes every tensor of a safetensors file in
// every way.
//
//   quantize_probe IN.safetensors OUT.safetensors [cpu|cuda]
//
// For input NAME the output holds NAME.<nf4|fp4>.<single|double>.{packed, absmax, nested_absmax,
// offset} and dequantized_{float32, bfloat16, float16} (nested_absmax and offset with double
// alone).
#include <ATen/Functions.h>

#include <iostream>

#include "worker/models/safetensors.h"
#include "worker/quantization/quantized_tensor.h"

namespace finetuned {
namespace {

void Run(const std::string& in_path, const std::string& out_path, const at::Device& device) {
  const auto in = SafetensorsFile::Open(in_path);
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const auto& [name, entry] : in->entries()) {
    const at::Tensor weight = in->Tensor(name).to(device);
    for (const auto& [type, type_name] :
         {std::pair{QuantType::kNf4, "nf4"}, std::pair{QuantType::kFp4, "fp4"}}) {
      for (const bool nested : {false, true}) {
        const QuantizedTensor q = Quantize4Bit(weight, type, nested);
        const std::string prefix = name + "." + type_name + (nested ? ".double." : ".single.");
        out.emplace_back(prefix + "packed", q.packed);
        out.emplace_back(prefix + "absmax", q.absmax);
        if (nested) {
          out.emplace_back(prefix + "nested_absmax", q.nested_absmax);
          out.emplace_back(prefix + "offset", at::full({1}, q.nested_offset, at::kFloat));
        }
        for (const auto& [dtype, dtype_name] :
             {std::pair{at::kFloat, "float32"}, std::pair{at::kBFloat16, "bfloat16"},
              std::pair{at::kHalf, "float16"}}) {
          out.emplace_back(prefix + "dequantized_" + dtype_name, Dequantize4Bit(q, dtype));
        }
      }
    }
  }
  std::vector<SafetensorsWriter::Declared> declared;
  for (auto& [name, tensor] : out)
    declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  SafetensorsWriter writer(out_path, declared, {});
  for (auto& [name, tensor] : out) writer.Write(name, tensor);
  writer.Finish();
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: quantize_probe IN OUT [cpu|cuda]\n";
    return 2;
  }
  try {
    finetuned::Run(argv[1], argv[2], at::Device(std::string(argc > 3 ? argv[3] : "cpu")));
  } catch (const std::exception& error) {
    std::cerr << "quantize_probe: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
