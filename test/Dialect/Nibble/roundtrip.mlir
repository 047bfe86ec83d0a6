// RUN: nibble-opt %s | FileCheck %s
// RUN: nibble-opt %s | nibble-opt | FileCheck %s
// RUN: nibble-opt %s --mlir-print-op-generic | nibble-opt | FileCheck %s
// RUN: nibble-opt %s --emit-bytecode | nibble-opt | FileCheck %s

// Every op, and every form of the encoding; invalid.mlir has what is refused.

// CHECK-LABEL: func.func private @storages(
// CHECK-SAME: #nibble.quantized<i2, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<i7, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<i16, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<i32, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<u2, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<u8, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<u16, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<f8E4M3FN, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<f8E5M2, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<f4E2M1FN, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<nf4, block = [*, *], scale = f32>
// CHECK-SAME: #nibble.quantized<fp4, block = [*, *], scale = f32>
func.func private @storages(
  tensor<4x4xf32, #nibble.quantized<i2, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<i7, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<i16, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<i32, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<u2, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<u8, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<u16, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<f8E4M3FN, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<f8E5M2, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<f4E2M1FN, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<nf4, block = [*, *], scale = f32>>,
  tensor<4x4xf32, #nibble.quantized<fp4, block = [*, *], scale = f32>>)

// CHECK-LABEL: func.func private @code_books(
// CHECK-SAME: codebook<[-1.000000e+00, 0.000000e+00, 0.3333333[[D:[0-9]*]], 1.000000e+00]>
// CHECK-SAME: codebook<[1.401{{[0-9]*}}e-45, 3.40282{{[0-9]*}}E+38]>
func.func private @code_books(
  tensor<4xf32, #nibble.quantized<codebook<[-1.0, 0.0, 0.333333343, 1.0]>, block = [2], scale = f32>>,
  tensor<4xf32, #nibble.quantized<codebook<[1.4e-45, 3.402823466e38]>, block = [2], scale = f32>>)

// CHECK-LABEL: func.func private @blocks(
// CHECK-SAME: tensor<f32, #nibble.quantized<i8, block = [], scale = f32>>
// CHECK-SAME: block = [32, 1]
// CHECK-SAME: block = [1, *, 7]
// CHECK-SAME: block = flat [64]
func.func private @blocks(
  tensor<f32, #nibble.quantized<i8, block = [], scale = f32>>,
  tensor<?x4xf16, #nibble.quantized<i8, block = [32, 1], scale = f16>>,
  tensor<3x?x?xbf16, #nibble.quantized<i8, block = [1, *, 7], scale = bf16>>,
  tensor<100x9xf32, #nibble.quantized<i8, block = flat [64], scale = f8E8M0FNU>>)

// The fields may come in any order and print in one.
// CHECK-LABEL: func.func private @fields(
// CHECK-SAME: #nibble.quantized<u4, block = [2], scale = f16, zero = u4>
// CHECK-SAME: #nibble.quantized<u4, block = [2], scale = f16, zero = i8>
// CHECK-SAME: #nibble.quantized<u4, block = [2], scale = f16, zero = bf16, outliers = sparse<f32>, layout = split_halves>
// CHECK-SAME: #nibble.quantized<u4, block = [2], scale = f16, outliers = columns<0, f16>, layout = tiles {k = 64 : i64, rows = 16 : i64}>
func.func private @fields(
  tensor<4xf32, #nibble.quantized<u4, zero = u4, scale = f16, block = [2]>>,
  tensor<4xf32, #nibble.quantized<u4, block = [2], scale = f16, zero = i8>>,
  tensor<4xf32, #nibble.quantized<u4, block = [2], scale = f16, layout = split_halves, outliers = sparse<f32>, zero = bf16>>,
  tensor<4xf32, #nibble.quantized<u4, block = [2], scale = f16, outliers = columns<0, f16>, layout = tiles {rows = 16 : i64, k = 64 : i64}>>)

// Double quantization, and SpQR's bilevel scales and zero points (Spec S7).
// CHECK-LABEL: func.func private @nested(
// CHECK-SAME: #nibble.quantized<nf4, block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>
// CHECK-SAME: #nibble.quantized<u3, block = [16, 1], scale = quantized<u3, block = [1, 16], scale = f16, zero = f16>, zero = quantized<u3, block = [1, 16], scale = f16, zero = f16>>
// CHECK-SAME: #nibble.quantized<i4, block = [32, 1], scale = quantized<u4, block = [4, 1], scale = quantized<u8, block = [*, *], scale = f32>>>
func.func private @nested(
  tensor<128x9xf32, #nibble.quantized<nf4, block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>>,
  tensor<128x64xf32, #nibble.quantized<u3, block = [16, 1], scale = quantized<u3, block = [1, 16], scale = f16, zero = f16>, zero = quantized<u3, block = [1, 16], scale = f16, zero = f16>>>,
  tensor<128x64xf32, #nibble.quantized<i4, block = [32, 1], scale = quantized<u4, block = [4, 1], scale = quantized<u8, block = [*, *], scale = f32>>>>)

// CHECK-LABEL: func.func private @alone
// CHECK-SAME: layout = #nibble.layout<tiles {rows = 16 : i64}>
// CHECK-SAME: outliers = #nibble.outliers<columns<0, f16>>
// CHECK-SAME: storage = #nibble.storage<u4>
func.func private @alone() attributes {
  storage = #nibble.storage<u4>, outliers = #nibble.outliers<columns<0, f16>>,
  layout = #nibble.layout<tiles {rows = 16 : i64}>}

!q = tensor<100x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>

// CHECK-LABEL: func.func @parts(
// CHECK-SAME: %[[C:.*]]: tensor<100x64xui4>, %[[S:.*]]: tensor<4x64xf16>, %[[Z:.*]]: tensor<4x64xui4>)
func.func @parts(%c: tensor<100x64xui4>, %s: tensor<4x64xf16>, %z: tensor<4x64xui4>)
    -> (tensor<100x64xui4>, tensor<4x64xf16>, tensor<4x64xui4>, tensor<100x64xf32>) {
  // CHECK: %[[W:.*]] = nibble.assemble %[[C]] scales(%[[S]]) zeros(%[[Z]]) {name = "w"} : tensor<100x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  %w = nibble.assemble %c scales(%s) zeros(%z) {name = "w"} : !q
  // CHECK: nibble.codes %[[W]] : tensor<100x64xf32, #
  // CHECK: nibble.scales %[[W]] : tensor<100x64xf32, #
  // CHECK: nibble.zeros %[[W]] : tensor<100x64xf32, #
  // CHECK: nibble.integers %[[W]] : tensor<100x64xf32, #
  // CHECK: nibble.dequantize %[[W]] : tensor<100x64xf32, #
  %c2 = nibble.codes %w : !q
  %s2 = nibble.scales %w : !q
  %z2 = nibble.zeros %w : !q
  %i = nibble.integers %w : !q
  %x = nibble.dequantize %w : !q
  return %c2, %s2, %z2, %x : tensor<100x64xui4>, tensor<4x64xf16>, tensor<4x64xui4>, tensor<100x64xf32>
}

// CHECK-LABEL: func.func @element_types(
func.func @element_types(
    %signed: tensor<8xf32, #nibble.quantized<i3, block = [4], scale = f32, zero = i3>>,
    %float: tensor<8xf32, #nibble.quantized<f4E2M1FN, block = [4], scale = f8E8M0FNU>>,
    %book: tensor<8xf32, #nibble.quantized<codebook<[-1.0, 0.0, 1.0]>, block = [4], scale = f32>>,
    %nf4: tensor<8xf32, #nibble.quantized<nf4, block = [4], scale = f32>>,
    %dynamic: tensor<?xf32, #nibble.quantized<i8, block = [4], scale = f32>>)
    -> (tensor<8xi3>, tensor<2xi3>, tensor<8xf4E2M1FN>, tensor<2xf8E8M0FNU>, tensor<8xui2>, tensor<8xui4>, tensor<?xi8>, tensor<?xf32>) {
  %0 = nibble.codes %signed : tensor<8xf32, #nibble.quantized<i3, block = [4], scale = f32, zero = i3>>
  %1 = nibble.zeros %signed : tensor<8xf32, #nibble.quantized<i3, block = [4], scale = f32, zero = i3>>
  %2 = nibble.codes %float : tensor<8xf32, #nibble.quantized<f4E2M1FN, block = [4], scale = f8E8M0FNU>>
  %3 = nibble.scales %float : tensor<8xf32, #nibble.quantized<f4E2M1FN, block = [4], scale = f8E8M0FNU>>
  %4 = nibble.codes %book : tensor<8xf32, #nibble.quantized<codebook<[-1.0, 0.0, 1.0]>, block = [4], scale = f32>>
  %5 = nibble.codes %nf4 : tensor<8xf32, #nibble.quantized<nf4, block = [4], scale = f32>>
  %6 = nibble.codes %dynamic : tensor<?xf32, #nibble.quantized<i8, block = [4], scale = f32>>
  %7 = nibble.scales %dynamic : tensor<?xf32, #nibble.quantized<i8, block = [4], scale = f32>>
  // CHECK: return {{.*}} : tensor<8xi3>, tensor<2xi3>, tensor<8xf4E2M1FN>, tensor<2xf8E8M0FNU>, tensor<8xui2>, tensor<8xui4>, tensor<?xi8>, tensor<?xf32>
  return %0, %1, %2, %3, %4, %5, %6, %7 : tensor<8xi3>, tensor<2xi3>, tensor<8xf4E2M1FN>, tensor<2xf8E8M0FNU>, tensor<8xui2>, tensor<8xui4>, tensor<?xi8>, tensor<?xf32>
}

// The scales of a nested encoding are a quantized tensor of f32.
// CHECK-LABEL: func.func @nested_parts(
func.func @nested_parts(%c: tensor<128x9xui4>, %sc: tensor<2x9xui8>, %ss: tensor<1xf32>, %sz: tensor<1xf32>)
    -> tensor<128x9xf32, #nibble.quantized<nf4, block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>> {
  // CHECK: nibble.assemble {{.*}} : tensor<2x9xf32, #nibble.quantized<u8, block = flat [256], scale = f32, zero = f32>>
  %s = nibble.assemble %sc scales(%ss) zeros(%sz) : tensor<2x9xf32, #nibble.quantized<u8, block = flat [256], scale = f32, zero = f32>>
  %w = nibble.assemble %c scales(%s) : tensor<128x9xf32, #nibble.quantized<nf4, block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>>
  return %w : tensor<128x9xf32, #nibble.quantized<nf4, block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>>
}

!columns = tensor<100x64xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = columns<0, f16>>>
!sparse = tensor<100x64xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = sparse<bf16>>>

// CHECK-LABEL: func.func @outliers(
func.func @outliers(%c: tensor<100x64xi8>, %s: tensor<1x64xf32>, %rows: tensor<5xi32>,
                    %slices: tensor<5x64xf16>, %at: tensor<?x2xi64>, %values: tensor<?xbf16>) {
  // CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) outliers(%{{.*}}, %{{.*}} : tensor<5xi32>, tensor<5x64xf16>) : tensor<100x64xf32, #
  %0 = nibble.assemble %c scales(%s) outliers(%rows, %slices : tensor<5xi32>, tensor<5x64xf16>) : !columns
  // CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) outliers(%{{.*}}, %{{.*}} : tensor<?x2xi64>, tensor<?xbf16>) : tensor<100x64xf32, #
  %1 = nibble.assemble %c scales(%s) outliers(%at, %values : tensor<?x2xi64>, tensor<?xbf16>) : !sparse
  // CHECK: %{{.*}}, %{{.*}} = nibble.outliers %{{.*}} : tensor<100x64xf32, #{{.*}}> -> tensor<?xi32>, tensor<?x64xf16>
  %2, %3 = nibble.outliers %0 : !columns -> tensor<?xi32>, tensor<?x64xf16>
  return
}

// CHECK-LABEL: func.func @quantize(
func.func @quantize(%x: tensor<?x64xf32>, %s: tensor<1x1xf32>, %z: tensor<1x1xui8>) {
  // CHECK: nibble.quantize %{{.*}} scales(%{{.*}}) zeros(%{{.*}}) : tensor<?x64xf32, #
  %0 = nibble.quantize %x scales(%s) zeros(%z) : tensor<?x64xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
  // CHECK: nibble.quantize %{{.*}} scales(%{{[a-z0-9]*}}) : tensor<?x64xf32, #
  %1 = nibble.quantize %x scales(%s) : tensor<?x64xf32, #nibble.quantized<nf4, block = [*, *], scale = f32>>
  // CHECK: nibble.quantize_dynamic %{{.*}} : tensor<?x64xf32, #
  %2 = nibble.quantize_dynamic %x : tensor<?x64xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>
  return
}

// CHECK-LABEL: func.func @compute(
func.func @compute(%x: tensor<1x?x100xf32>, %xq: tensor<?x100xf16, #nibble.quantized<i8, block = [1, *], scale = f32>>,
                   %w: !q, %b: tensor<64xf32>, %ids: tensor<2x?xi64>, %ids32: tensor<i32>) {
  // CHECK: nibble.matmul %{{.*}}, %{{.*}} bias(%{{.*}} : tensor<64xf32>) compute f32 : tensor<1x?x100xf32>, tensor<100x64xf32, #
  %0 = nibble.matmul %x, %w bias(%b : tensor<64xf32>) compute f32 : tensor<1x?x100xf32>, !q
  // CHECK: nibble.matmul %{{.*}}, %{{.*}} compute i8 : tensor<?x100xf16, #{{.*}}>, tensor<100x64xf32, #
  %1 = nibble.matmul %xq, %w compute i8 : tensor<?x100xf16, #nibble.quantized<i8, block = [1, *], scale = f32>>, !q
  // CHECK: %[[G:.*]] = nibble.gather %{{.*}}[%{{.*}}] axis 0 : tensor<100x64xf32, #{{.*}}>, tensor<2x?xi64>
  %2 = nibble.gather %w[%ids] axis 0 : !q, tensor<2x?xi64>
  // CHECK: nibble.matmul %[[G]], transposed %{{.*}} compute bf16 : tensor<2x?x64xf32>, tensor<100x64xf32, #
  %3 = nibble.matmul %2, transposed %w compute bf16 : tensor<2x?x64xf32>, !q
  // CHECK: nibble.gather %{{.*}}[%{{.*}}] axis 1 : tensor<100x64xf32, #{{.*}}>, tensor<i32>
  %4 = nibble.gather %w[%ids32] axis 1 : !q, tensor<i32>
  // CHECK: nibble.observe "logits" %{{.*}} : tensor<2x?x100xf32>
  %5 = nibble.observe "logits" %3 : tensor<2x?x100xf32>
  // CHECK: nibble.observe "column" %{{.*}} : tensor<100xf32>
  %6 = nibble.observe "column" %4 : tensor<100xf32>
  return
}

// Ops of other dialects take a quantized tensor as the real numbers it is.
// CHECK-LABEL: func.func @other_dialects(
func.func @other_dialects(%x: tensor<8x100xf32>, %w: !q, %y: tensor<8x64xf32>) -> tensor<8x64xf32> {
  // CHECK: linalg.matmul ins(%{{.*}}, %{{.*}} : tensor<8x100xf32>, tensor<100x64xf32, #nibble
  %0 = linalg.matmul ins(%x, %w : tensor<8x100xf32>, !q) outs(%y : tensor<8x64xf32>) -> tensor<8x64xf32>
  return %0 : tensor<8x64xf32>
}
