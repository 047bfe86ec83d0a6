// Stock mlir-opt cannot load a library with sanitizers.
// UNSUPPORTED: sanitizers
// RUN: mlir-opt --load-dialect-plugin=%nibble_plugin %s \
// RUN:   --pass-pipeline='builtin.module(canonicalize)' | FileCheck %s
// RUN: mlir-opt --load-dialect-plugin=%nibble_plugin --load-pass-plugin=%nibble_plugin \
// RUN:   --pass-pipeline='builtin.module(canonicalize)' %s | FileCheck %s
// RUN: not mlir-opt %s 2>&1 | FileCheck %s --check-prefix=WITHOUT

// Stock mlir-opt with the plugin knows the dialect: it parses the encoding and
// folds its ops.

// WITHOUT: #"nibble"<"quantized
// CHECK-LABEL: func.func @fold(
// CHECK-SAME: %[[W:.*]]: tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>
// CHECK-NEXT: return %[[W]]
func.func @fold(%w: tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>)
    -> tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>> {
  %0 = nibble.codes %w : tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>
  %1 = nibble.scales %w : tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>
  %2 = nibble.assemble %0 scales(%1) : tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>
  return %2 : tensor<64xf32, #nibble.quantized<nf4, block = [32], scale = f16>>
}
