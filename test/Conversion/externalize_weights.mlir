// RUN: nibble-opt %s --nibble-externalize-weights | FileCheck %s

// Both uses of one blob are one argument; small constants stay.
// CHECK: func.func @main(%[[X:.*]]: tensor<2xf32>, %[[W:.*]]: tensor<2xf32> {nibble.weight = dense_resource<w> : tensor<2xf32>})
// CHECK: %[[SMALL:.*]] = arith.constant dense<1.000000e+00>
// CHECK: return %[[W]], %[[W]], %[[SMALL]]
func.func @main(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) {
  %a = arith.constant dense_resource<w> : tensor<2xf32>
  %b = arith.constant dense_resource<w> : tensor<2xf32>
  %c = arith.constant dense<1.0> : tensor<2xf32>
  return %a, %b, %c : tensor<2xf32>, tensor<2xf32>, tensor<2xf32>
}

{-#
  dialect_resources: {
    builtin: {
      w: "0x040000000000803F00000040"
    }
  }
#-}
