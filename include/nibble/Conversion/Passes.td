//===- Passes.td - Conversions between dialects ------------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_PASSES_TD
#define NIBBLE_CONVERSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertOnnxToLinalg : Pass<"convert-onnx-to-linalg", "::mlir::ModuleOp"> {
  let summary = "Nodes of the onnx dialect to linalg, tensor and arith";
  let description = [{
    Each `onnx.node` becomes the plain IR that its op type, domain and version
    mean. Elements that plain IR has no memory for are stored in wider ones:
    `ui4` as `i8`, `f8E4M3FN` as its code in `i8` (ScalarBuilder.h has the
    table). Computations on f16 and narrower floats are done in f32 and rounded
    once. Names of dimensions disappear from the types. A weight becomes an
    `arith.constant` over the bytes of the mapped file, without a copy.

    A MatMul, Gemm or Gather of a quantized tensor becomes `nibble.matmul` or
    `nibble.gather`; other nodes dequantize such an operand first.

    ```mlir
    %y = onnx.node "Add"(%a, %b) outputs ["y"]
        : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
    ```
    ⇒
    ```mlir
    %e = tensor.empty() : tensor<2x3xf32>
    %y = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>,
                                          affine_map<(i, j) -> (j)>,
                                          affine_map<(i, j) -> (i, j)>],
                         iterator_types = ["parallel", "parallel"]}
        ins(%a, %b : tensor<2x3xf32>, tensor<3xf32>) outs(%e : tensor<2x3xf32>) {
      ^bb0(%x: f32, %y: f32, %out: f32):
        %s = arith.addf %x, %y : f32
        linalg.yield %s : f32
    } -> tensor<2x3xf32>
    ```

    Types must be known (`--onnx-infer-shapes`). A node without a conversion is
    an error that names it, before anything is changed.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::cf::ControlFlowDialect",
    "::mlir::func::FuncDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::math::MathDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect",
    "::nibble::NibbleDialect"
  ];
  let statistics = [
    Statistic<"numNodes", "nodes", "Number of nodes converted">,
    Statistic<"numConstants", "constants", "Number of constants converted">,
    Statistic<"numMappedBytes", "mapped-bytes",
              "Bytes of constants that stay in their file">
  ];
}

def LowerNibbleToReference : Pass<"lower-nibble-to-reference", "::mlir::ModuleOp"> {
  let summary = "The nibble dialect to plain loops, as docs/Spec.md says";
  let description = [{
    The executable truth for Nibble's numerics: every op becomes linalg and
    arith that follow docs/Spec.md literally, one element after the other, with
    no regard for speed. A quantized tensor becomes its parts: codes, scales and
    zero points (each again in parts where it is nested), and outliers.

    ```mlir
    %x = nibble.dequantize %w
        : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
    ```
    ⇒
    ```mlir
    %x = linalg.generic … outs(%e : tensor<64x8xf32>) {
      ^bb0(%out: f32):
        %k = linalg.index 0 : index
        %n = linalg.index 1 : index
        %block = arith.divui %k, %c32 : index
        %scale = tensor.extract %scales[%block, %n] : tensor<2x8xf16>
        %code = tensor.extract %codes[%k, %n] : tensor<64x8xi8>
        …
    }
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::math::MathDialect",
    "::mlir::scf::SCFDialect", "::mlir::tensor::TensorDialect",
    "::nibble::NibbleDialect"
  ];
  let statistics = [
    Statistic<"numOps", "ops", "Number of ops lowered">
  ];
}

def ExternalizeWeights : Pass<"nibble-externalize-weights", "::mlir::ModuleOp"> {
  let summary = "Large constants become arguments of the main function";
  let description = [{
    Compiling a constant copies it several times. So each `dense_resource` of the
    function `main` becomes an argument after the others, with its value in
    the attribute `nibble.weight`; who runs the code passes the bytes of the
    mapped file.

    ```mlir
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %w = arith.constant dense_resource<w> : tensor<4xf32>
    ```
    ⇒
    ```mlir
    func.func @main(%x: tensor<4xf32>,
        %w: tensor<4xf32> {nibble.weight = dense_resource<w> : tensor<4xf32>})
        -> tensor<4xf32> {
    ```
  }];
  let statistics = [
    Statistic<"numWeights", "weights", "Number of constants moved">
  ];
}

def LowerCopies : Pass<"nibble-lower-copies"> {
  let summary = "Copies between buffers as loops";
  let description = [{
    Upstream lowers a copy of a buffer with gaps to a call into its runner library.
    A `linalg.generic` needs no library.

    ```mlir
    memref.copy %a, %b : memref<4xf32, strided<[2]>> to memref<4xf32>
    ```
    ⇒
    ```mlir
    linalg.generic … ins(%a : memref<4xf32, strided<[2]>>)
                     outs(%b : memref<4xf32>) { … linalg.yield %in : f32 }
    ```
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
  let statistics = [Statistic<"numCopies", "copies", "Number of copies lowered">];
}

def OutlineLoops : Pass<"nibble-outline-loops", "::mlir::ModuleOp"> {
  let summary = "Each loop nest becomes a function of its own";
  let description = [{
    LLVM takes more than linear time for one function with the loops of a whole
    model, and for one with many parallel loops. So every outermost loop of `main`
    without results, and every choice between loops of which one is parallel, moves
    into a private function that is not inlined; what it reads from outside are the arguments,
    constants go with it. Loops that do the same share one function, as the layers
    of a model do.

    ```mlir
    scf.for %i = %c0 to %n step %c1 { memref.store %x, %m[%i] : memref<?xf32> }
    ```
    ⇒
    ```mlir
    call @main_loop_0(%n, %x, %m) : (index, f32, memref<?xf32>) -> ()
    ```
  }];
  let dependentDialects = ["::mlir::func::FuncDialect"];
  let statistics = [
    Statistic<"numLoops", "loops", "Number of loops outlined">,
    Statistic<"numFunctions", "functions", "Number of functions made of them">
  ];
}

def FuseElementwise : Pass<"nibble-fuse-elementwise", "::mlir::func::FuncOp"> {
  let summary = "Chains of elementwise ops as one loop";
  let description = [{
    An elementwise op that only one other op reads moves into it, so that the
    numbers between them are never stored. A cheap one that reads one tensor of its
    size moves into each of its few readers, as the scaling of scores into the parts
    of a softmax. Matrix products and convolutions stay alone, and transposes of their operands move into the product's maps: kernels read rows
    or columns.

    ```mlir
    %a = linalg.generic ins(%x, %b) … { addf }
    %y = linalg.generic ins(%a) … { maximumf }
    ```
    ⇒
    ```mlir
    %y = linalg.generic ins(%x, %b) … { addf, maximumf }
    ```
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

def RelaxMath : Pass<"nibble-relax-math"> {
  let summary = "Functions as polynomials, sums in any order";
  let description = [{
    Lets loops be vectorized. Exponential, logarithm, hyperbolic tangent and error
    function of f32 become polynomials that err by a few units in the last place,
    and sums and products over a dimension may be taken in any order, as Spec S12
    allows. The order does not depend on the number of threads.

    ```mlir
    %t = arith.addf %sum, %x : f32
    ```
    ⇒
    ```mlir
    %t = arith.addf %sum, %x fastmath<reassoc,contract> : f32
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::math::MathDialect",
    "::mlir::vector::VectorDialect"
  ];
}

def SumIntegers : Pass<"nibble-sum-integers", "::mlir::ModuleOp"> {
  let summary = "Convolutions of codes as sums of integers";
  let description = [{
    A convolution of activations in 8 bits with one constant scale and zero point,
    and of a constant weight in signed bytes without a zero point, becomes one of
    the codes, summed in i32. An elementwise op corrects the sums for the zero point
    and scales them. Padding with 0 becomes padding with the zero point.
    Convolutions with one or two output channels for each input stay.

    ```mlir
    %x = nibble.dequantize %q : tensor<1x8x?xf32, #nibble.quantized<u8,
        block = [*, *, *], scale = f32, zero = u8>>
    %w = nibble.dequantize %c : tensor<16x8x3xf32, #nibble.quantized<i8,
        block = [1, *, *], scale = f32>>
    %y = linalg.generic ins(%x, %w : tensor<1x8x?xf32>, tensor<16x8x3xf32>) … {
      mulf, addf
    }
    ```
    ⇒
    ```mlir
    %sums = linalg.generic ins(%codes, %bytes : tensor<1x8x?xi8>, tensor<16x8x3xi8>)
        outs(%zeros : tensor<1x16x?xi32>) … { extui, extsi, muli, addi }
    %y = linalg.generic ins(%sums, %init, %corrections, %factors
        : tensor<1x16x?xi32>, tensor<1x16x?xf32>, tensor<16xi32>, tensor<16xf32>) … {
      addi, sitofp, mulf, addf
    }
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::tensor::TensorDialect", "::nibble::NibbleDialect"
  ];
  let statistics = [
    Statistic<"numConvolutions", "convolutions", "Number of convolutions"
              " of integers">
  ];
}

def PackWeights : Pass<"nibble-pack-weights", "::mlir::ModuleOp"> {
  let summary = "Constant weights of matrix products in the layout of kernels";
  let description = [{
    A `nibble.matmul` whose weight is constant, and a contraction of f32 with a
    constant matrix, become `nibble.packed_matmul` with the weight's numbers in
    the order in which kernels stream them (PanelPacking.h). A transposed constant
    is packed as it is read; a weight with several readers is packed once.

    ```mlir
    %y = nibble.matmul %x, %w compute f32
        : tensor<?x128xf32>, tensor<128x64xf32, #nibble.quantized<u4,
            block = [32, 1], scale = f32, zero = u4>>
    ```
    ⇒
    ```mlir
    %packed = arith.constant dense_resource<packed> : tensor<5376xi8>
    %e = tensor.empty(%m) : tensor<?x64xf32>
    %y = nibble.packed_matmul %x, %packed outs(%e)
        weight tensor<128x64xf32, #nibble.quantized<u4, block = [32, 1],
            scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute i8
        : tensor<?x128xf32>, tensor<5376xi8>, tensor<?x64xf32>
    ```

    Products that kernels have no format for stay as they are.
  }];
  let options = [
    Option<"compute", "compute", "std::string", /*default=*/"\"auto\"",
           "How products with integer codes are computed: 'i8' quantizes the "
           "activations too, 'f32' does not, 'auto' leaves what the op says">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::tensor::TensorDialect",
    "::nibble::NibbleDialect"
  ];
  let statistics = [
    Statistic<"numWeights", "weights", "Number of weights packed">
  ];
}

def LowerKernels : Pass<"nibble-lower-kernels", "::mlir::ModuleOp"> {
  let summary = "Matrix products as calls of generated kernels";
  let description = [{
    Each `nibble.packed_matmul` on buffers, and each contraction of f32 buffers
    whose rows or columns have no gaps, becomes a loop over tiles of 64 columns
    that calls a kernel. The kernel is a function that is written once for its
    format and target, over `vector`, `scf` and `memref`; all sizes are arguments,
    so that layers share it. The loop is parallel where there is work enough.

    ```mlir
    nibble.packed_matmul %x, %packed outs(%y) weight tensor<128x64xf32> compute f32
        : memref<?x128xf32>, memref<8192xf32>, memref<?x64xf32>
    ```
    ⇒
    ```mlir
    scf.parallel (%tile) = (%c0) to (%c1) step (%c1) {
      func.call @nibble_f32(%x, %packed, %none, %y, %tile) : (…) -> ()
    }
    ```
  }];
  let options = [
    Option<"target", "target", "std::string", /*default=*/"\"native\"",
           "The instruction set to write kernels for, by its name">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"
  ];
  let statistics = [
    Statistic<"numKernels", "kernels", "Number of products lowered">
  ];
}

def LowerLoops : Pass<"nibble-lower-loops", "::mlir::ModuleOp"> {
  let summary = "Elementwise ops and reductions as loops in functions";
  let description = [{
    Each linalg op on buffers becomes a call of a function that does a part of its
    outer loops, in parallel where there is work enough. Dimensions that lie
    behind each other in all operands become one loop. Where the innermost loop
    is a reduction, all its loops are inside and carry what it has so far, so that
    it stays in a register. Ops that do the same share a function. The order of a
    sum does not depend on the number of threads.

    ```mlir
    linalg.generic … iterator_types = ["parallel", "reduction"]
        ins(%x : memref<?x?xf32>) outs(%sums : memref<?xf32>) { addf }
    ```
    ⇒
    ```mlir
    scf.if %large {
      scf.parallel (%part) = (%c0) to (%parts) step (%c1) {
        call @nibble_loop(%first, %end, %x, %sums)
      }
    } else {
      call @nibble_loop(%c0, %rows, %x, %sums)
    }
    ```
  }];
  let dependentDialects = [
    "::mlir::affine::AffineDialect", "::mlir::arith::ArithDialect",
    "::mlir::func::FuncDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect"
  ];
  let statistics = [
    Statistic<"numOps", "ops", "Number of ops lowered">,
    Statistic<"numFunctions", "functions", "Number of functions made of them">
  ];
}

def LowerMicroOps : Pass<"nibble-lower-micro-ops"> {
  let summary = "Steps of kernels as a target's instructions";
  let description = [{
    Replaces `nibble.dot4` and `nibble.lookup` by instructions of the target row, or
    spells them out for a target without one; `math.fma` and conversions of f16
    are spelled out where a target lacks them. The larger and the smaller of two
    floats become LLVM's intrinsics.

    ```mlir
    %s = nibble.dot4 %sums, %w, %a : vector<16xi32>, vector<64xi8>
    ```
    ⇒ (x86-64-v4+vnni)
    ```mlir
    %s = llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%sums, %w, %a)
        : (vector<16xi32>, vector<64xi8>, vector<64xi8>) -> vector<16xi32>
    ```
  }];
  let options = [
    Option<"target", "target", "std::string", /*default=*/"\"native\"",
           "The instruction set, by its name">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::LLVM::LLVMDialect",
    "::mlir::vector::VectorDialect"
  ];
  let statistics = [
    Statistic<"numDots", "dots", "Number of dot4 lowered">,
    Statistic<"numLookups", "lookups", "Number of lookup lowered">
  ];
}

def PackFragments : Pass<"nibble-pack-fragments", "::mlir::ModuleOp"> {
  let summary = "Constant weights of matrix products packed for tensor cores";
  let description = [{
    A `nibble.matmul` whose weight is constant, in a format that tensor-core kernels
    know, becomes `nibble.fragment_matmul` of its activations in f16; its result is
    widened to f32 before the bias is added. A weight with several readers is packed
    once. Others stay, with a warning: they are dequantized and multiplied in f32.

    ```mlir
    %y = nibble.matmul %x, %w compute f32
        : tensor<?x128xf32>, tensor<128x64xf32, #nibble.quantized<u4,
            block = [32, 1], scale = f32, zero = u4>>
    ```
    ⇒
    ```mlir
    %half = linalg.generic … ins(%x : tensor<?x128xf32>) … { truncf }
    %sums = nibble.fragment_matmul %half, %packed outs(%e)
        weight tensor<128x64xf32, #nibble.quantized<u4, block = [32, 1],
            scale = f16, zero = u4, layout = fragment {group = 32 : i64}>>
        : tensor<?x128xf16>, tensor<6144xi8>, tensor<?x64xf16>
    %y = linalg.generic … ins(%sums : tensor<?x64xf16>) … { extf }
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::tensor::TensorDialect", "::nibble::NibbleDialect"
  ];
  let statistics = [
    Statistic<"numWeights", "weights", "Number of weights packed">
  ];
}

def LaunchKernels : Pass<"nibble-launch-kernels", "::mlir::ModuleOp"> {
  let summary = "Ops on buffers as launches of GPU kernels";
  let description = [{
    Each linalg op on buffers that a GPU can do becomes a kernel in the module
    `nibble_device`, with a thread for each element of its result, and a call of a
    function that launches it. Ops that do the same share both. Integers of which there
    are few, as in arithmetic of shapes, stay with the host, and so does what no kernel can
    do: checks, functions without code for GPUs, control flow.

    ```mlir
    linalg.generic … ins(%x : memref<?xf32>) outs(%y : memref<?xf32>) { mulf }
    ```
    ⇒
    ```mlir
    func.call @nibble_launch(%x, %y) : (memref<?xf32>, memref<?xf32>) -> ()
    …
    func.func private @nibble_launch(%x: memref<?xf32>, %y: memref<?xf32>) {
      …
      llvm.call @nibble_device_launch(%kernel, %blocks, %threads, %words, %count)
    }
    module @nibble_device attributes {nibble.kernels = ["map_0"]} {
      llvm.func @map_0(%x: !llvm.ptr<1>, …) attributes {nvvm.kernel, …} { … }
    }
    ```
  }];
  let options = [
    Option<"target", "target", "std::string", /*default=*/"\"nvidia-sm80\"",
           "The GPU to write kernels for, by its name">
  ];
  let dependentDialects = [
    "::mlir::affine::AffineDialect", "::mlir::arith::ArithDialect",
    "::mlir::func::FuncDialect", "::mlir::linalg::LinalgDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
    "::mlir::memref::MemRefDialect", "::mlir::NVVM::NVVMDialect",
    "::mlir::scf::SCFDialect"
  ];
  let statistics = [
    Statistic<"numLaunches", "launches", "Number of ops that are launched">,
    Statistic<"numKernels", "kernels", "Number of kernels made of them">
  ];
}

def PlaceBuffers : Pass<"nibble-place-buffers", "::mlir::ModuleOp"> {
  let summary = "Buffers that launches touch in memory of the GPU";
  let description = [{
    Buffers of `main` that a launch may touch come from `nibble_device_allocate`:
    memory that the host and the GPU both see. Inputs that are not there yet (without the
    attribute `nibble.resident`) are copied at the start, results at the end. Launches
    run one after the other while the host goes on; before it touches such a buffer it
    waits for them.

    ```mlir
    %b = memref.alloc() : memref<4xf32>
    func.call @nibble_launch(%x, %b) : (memref<4xf32>, memref<4xf32>) -> ()
    %v = memref.load %b[%c0] : memref<4xf32>
    ```
    ⇒
    ```mlir
    %m = func.call @nibble_device_allocate(%c16) : (index) -> memref<?xi8>
    %b = memref.view %m[%c0][] : memref<?xi8> to memref<4xf32>
    func.call @nibble_launch(%x, %b) : (memref<4xf32>, memref<4xf32>) -> ()
    func.call @nibble_device_synchronize() : () -> ()
    %v = memref.load %b[%c0] : memref<4xf32>
    ```

    `nibble.buffer_bytes` of the module of the kernels says how many bytes such buffers
    take at a time, where all sizes are known.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::memref::MemRefDialect"
  ];
  let statistics = [
    Statistic<"numBuffers", "buffers", "Number of buffers of the GPU">,
    Statistic<"numWaits", "waits", "Number of places where the host waits">
  ];
}

def LowerChecks : Pass<"nibble-lower-checks", "::mlir::ModuleOp"> {
  let summary = "What must hold at run time as calls into the runtime";
  let description = [{
    A failed `cf.assert` ends the run with its message, not the process. The bytes
    of each buffer of dynamic shape are counted with care for overflow before it is
    allocated, and each `scf.while` asks in every turn whether it shall end. The
    runtime functions are in include/nibble/Runtime/Run.h; they may be called only
    by the thread that began the run.

    ```mlir
    cf.assert %ok, "node 'x': index is out of range"
    ```
    ⇒
    ```mlir
    %failed = arith.xori %ok, %true : i1
    scf.if %failed {
      %message = llvm.mlir.addressof @nibble_message_0 : !llvm.ptr
      llvm.call @nibble_runtime_fail(%c3, %message) : (i32, !llvm.ptr) -> ()
    }
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::LLVM::LLVMDialect",
    "::mlir::scf::SCFDialect"
  ];
  let statistics = [
    Statistic<"numChecks", "checks", "Number of assertions lowered">,
    Statistic<"numSizes", "sizes", "Number of buffers whose size is checked">,
    Statistic<"numLoops", "loops", "Number of loops that can be interrupted">
  ];
}

def ReturnByAddress : Pass<"nibble-return-by-address", "::mlir::ModuleOp"> {
  let summary = "The buffers that main returns go where its caller wants them";
  let description = [{
    A function that returns many buffers returns one struct of all their
    descriptors, on which LLVM spends more than linear time. So `main` gets the
    address for them as its first argument and stores them one after the other,
    which is what its C interface does.

    ```mlir
    func.func @main(%a: memref<4xf32>) -> (memref<4xf32>, memref<2xf32>)
    ```
    ⇒
    ```mlir
    func.func @main(%results: !llvm.ptr, %a: memref<4xf32>)
    ```
  }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
  let statistics = [
    Statistic<"numResults", "results", "Number of results stored by address">
  ];
}

def SeparateDestinations : Pass<"nibble-separate-destinations"> {
  let summary = "Each op that writes to an empty or filled tensor gets its own";
  let description = [{
    Common subexpressions include `tensor.empty`, so that after their elimination
    the whole model writes to a few empty tensors. Bufferization then compares
    every two ops, which takes quadratic time, and allocates all memory first. A
    tensor of zeros that many products start from would be copied for each. This
    undoes both.

    ```mlir
    %e = tensor.empty(%n) : tensor<?xf32>
    %a = linalg.fill ins(%x : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    %b = linalg.fill ins(%y : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    ```
    ⇒
    ```mlir
    %e = tensor.empty(%n) : tensor<?xf32>
    %a = linalg.fill ins(%x : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
    %f = tensor.empty(%n) : tensor<?xf32>
    %b = linalg.fill ins(%y : f32) outs(%f : tensor<?xf32>) -> tensor<?xf32>
    ```
  }];
  let statistics = [
    Statistic<"numCopies", "copies", "Number of empty tensors made">
  ];
}

#endif // NIBBLE_CONVERSION_PASSES_TD
