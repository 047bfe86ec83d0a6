//===- LaunchKernels.cpp - Ops on buffers as launches of GPU kernels ------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LoopKernel.h"

#include "nibble/Conversion/DeviceProgram.h"
#include "nibble/Conversion/OutlinedOps.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Conversion/TensorCoreKernels.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Target/NVVM/NvidiaRow.h"

#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"

namespace nibble {
#define GEN_PASS_DEF_LAUNCHKERNELS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// Elements up to which arithmetic of shapes stays on the host.
static constexpr int64_t kHostElements = 256;

/// True for integers of which there are few, such as shapes are: the host needs
/// them next.
static bool isShapeArithmetic(linalg::LinalgOp op) {
  int64_t elements = 1;
  for (int64_t size : op.getStaticLoopRanges())
    elements = ShapedType::isDynamic(size)
                   ? kHostElements + 1
                   : std::min(elements * size, kHostElements + 1);
  return elements <= kHostElements &&
         llvm::all_of(op->getOperandTypes(), [](Type type) {
           return getElementTypeOrSelf(type).isIntOrIndex();
         });
}

namespace {
/// The kernels of a format of weights.
struct ProductKernels {
  FragmentWeight weight;
  /// Of each kernel, in the order in which they were built.
  SmallVector<Attribute> kernels;
  /// The tiles that have one.
  llvm::SmallBitVector built;
};

struct LaunchKernels : nibble::impl::LaunchKernelsBase<LaunchKernels> {
  using LaunchKernelsBase::LaunchKernelsBase;

  void runOnOperation() override;

private:
  void launch(linalg::LinalgOp op);
  LogicalResult launch(FragmentMatmulOp op);
  /// Calls the function that does what `op` does, which `build` replaces in it.
  void callLaunch(
      Operation *op, const OutsideValues &outside,
      llvm::function_ref<void(OpBuilder &, Operation *, ValueRange)> build);
  void buildLaunch(OpBuilder &builder, linalg::GenericOp op,
                   ValueRange arguments);
  void buildMultiply(OpBuilder &builder, FragmentMatmulOp op,
                     ValueRange arguments);
  size_t getFormat(FragmentMatmulOp op);
  LLVM::LLVMFuncOp declare(StringRef name, ArrayRef<Type> types);

  const NvidiaRow *row = nullptr;
  ModuleOp device;
  SmallVector<Attribute> kernels;
  std::vector<ProductKernels> products;
  OutlinedFunctions launches;
};
} // namespace

LLVM::LLVMFuncOp LaunchKernels::declare(StringRef name, ArrayRef<Type> types) {
  if (auto known = getOperation().lookupSymbol<LLVM::LLVMFuncOp>(name))
    return known;
  OpBuilder builder = OpBuilder::atBlockBegin(getOperation().getBody());
  return LLVM::LLVMFuncOp::create(
      builder, getOperation().getLoc(), name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(&getContext()),
                                  types));
}

/// The address of a word for each of `values`, one after the other.
static Value storeWords(OpBuilder &builder, Location loc, ValueRange values) {
  Type i64 = builder.getI64Type();
  Type pointer = LLVM::LLVMPointerType::get(builder.getContext());
  auto integer = [&](int64_t value) -> Value {
    return LLVM::ConstantOp::create(builder, loc,
                                    builder.getI64IntegerAttr(value));
  };
  // The runtime puts as many pointers behind them.
  Value words = LLVM::AllocaOp::create(builder, loc, pointer, i64,
                                       integer(2 * values.size() + 1));
  for (auto [number, value] : llvm::enumerate(values)) {
    Value place = LLVM::GEPOp::create(
        builder, loc, pointer, i64, words,
        ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(number)});
    LLVM::StoreOp::create(builder, loc, value, place);
  }
  return words;
}

/// Calls the runtime with a new kernel that does what `op` does.
void LaunchKernels::buildLaunch(OpBuilder &builder, linalg::GenericOp op,
                                ValueRange arguments) {
  Location loc = op.getLoc();
  std::string name = ((op.getNumReductionLoops() > 0 ? "reduce_" : "map_") +
                      Twine(kernels.size()))
                         .str();
  buildLoopKernel(device, name, op, arguments);
  CodeBuilder code(builder, loc);
  Value threads =
      arith::ConstantIndexOp::create(builder, loc, getThreadsPerElement(op));
  auto linalg = cast<linalg::LinalgOp>(op.getOperation());
  SmallVector<Range> ranges = linalg.createLoopRanges(builder, loc);
  SmallVector<unsigned> loops;
  op.getParallelDims(loops);
  for (unsigned loop : loops)
    threads = code.mul(threads, getValueOrCreateConstantIndexOp(
                                    builder, loc, ranges[loop].size));
  Type i64 = builder.getI64Type();
  Type pointer = LLVM::LLVMPointerType::get(&getContext());
  auto word = [&](int64_t value) -> Value {
    return arith::ConstantIntOp::create(builder, loc, value, 64);
  };
  Value blocks = arith::IndexCastOp::create(
      builder, loc, i64, code.divideUp(threads, kLoopThreads));
  Values words = buildKernelArguments(builder, loc, arguments);
  auto launch = declare("nibble_device_launch", {i64, i64, i64, pointer, i64});
  LLVM::CallOp::create(builder, loc, launch,
                       {word(kernels.size()), blocks, word(kLoopThreads),
                        storeWords(builder, loc, words), word(words.size())});
  kernels.push_back(builder.getStringAttr(name));
}

void LaunchKernels::callLaunch(
    Operation *op, const OutsideValues &outside,
    llvm::function_ref<void(OpBuilder &, Operation *, ValueRange)> build) {
  auto [function, copy] = launches.outline(op, outside, "nibble_launch");
  if (copy) {
    function->setAttr(kLaunchAttrName, UnitAttr::get(&getContext()));
    SymbolTable(getOperation()).insert(function);
    OpBuilder builder(copy);
    build(builder, copy, function.getArguments());
    copy->erase();
    ++numKernels;
  }
  OpBuilder builder(op);
  func::CallOp::create(builder, op->getLoc(), function, outside.arguments);
  op->erase();
  ++numLaunches;
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

static Attribute describeKernel(Builder &builder, const FragmentMatmul &kernel,
                                int64_t maxRows) {
  const FragmentTile &tile = kernel.tile;
  auto number = [&](StringRef key, int64_t value) {
    return builder.getNamedAttr(key, builder.getI64IntegerAttr(value));
  };
  return builder.getDictionaryAttr(
      {builder.getNamedAttr("name", builder.getStringAttr(kernel.getName())),
       number("max_rows", maxRows), number("outputs", tile.outputs()),
       number("rows", tile.rows()), number("warps_along_k", tile.warpsAlongK),
       number("threads", tile.threads()),
       number("shared_bytes", tile.sharedBytes())});
}

/// The number of the format of the weight of `op`, with kernels for its rows:
/// all where their number is dynamic, else those that are chosen for it.
size_t LaunchKernels::getFormat(FragmentMatmulOp op) {
  RankedTensorType type = op.getWeightTensorType();
  FragmentWeight weight;
  weight.storage = getStorageFormat(getQuantization(type).getStorage());
  weight.group = getFragmentFormat(type)->group;
  auto known = llvm::find_if(products, [&](const ProductKernels &other) {
    return other.weight.storage == weight.storage &&
           other.weight.group == weight.group;
  });
  size_t number = known - products.begin();
  std::vector<SizedTile> tiles = getFragmentTiles(weight, row->hasWarpgroups);
  if (known == products.end())
    products.push_back({weight, {}, llvm::SmallBitVector(tiles.size())});
  ProductKernels &product = products[number];
  int64_t rows = cast<ShapedType>(op.getActivations().getType()).getDimSize(0);
  int64_t chosen = SizedTile::kAnyRows;
  for (const SizedTile &sized : tiles)
    if (sized.maxRows >= rows)
      chosen = std::min(chosen, sized.maxRows);
  Builder builder(&getContext());
  for (auto [i, sized] : llvm::enumerate(tiles)) {
    bool isNeeded = ShapedType::isDynamic(rows) || sized.maxRows == chosen;
    if (!isNeeded || product.built.test(i) ||
        sized.tile.sharedBytes() > row->sharedBytes)
      continue;
    FragmentMatmul kernel;
    kernel.weight = weight;
    kernel.tile = sized.tile;
    kernel.overlaps = row->canOverlap;
    buildFragmentMatmul(device, kernel);
    product.kernels.push_back(describeKernel(builder, kernel, sized.maxRows));
    product.built.set(i);
  }
  return number;
}

void LaunchKernels::buildMultiply(OpBuilder &builder, FragmentMatmulOp op,
                                  ValueRange arguments) {
  Location loc = op.getLoc();
  RankedTensorType weight = op.getWeightTensorType();
  Type i64 = builder.getI64Type();
  auto word = [&](int64_t value) -> Value {
    return arith::ConstantIntOp::create(builder, loc, value, 64);
  };
  auto stride = [&](Value buffer) {
    return word(
        cast<MemRefType>(buffer.getType()).getStridesAndOffset().first[0]);
  };
  Value rows = arith::IndexCastOp::create(
      builder, loc, i64,
      memref::DimOp::create(builder, loc, op.getActivations(), 0));
  Values values{word(getFormat(op)),
                rows,
                word(weight.getDimSize(1)),
                word(weight.getDimSize(0)),
                buildAddress(builder, loc, op.getActivations()),
                stride(op.getActivations()),
                buildAddress(builder, loc, op.getWeight()),
                buildAddress(builder, loc, op.getInit()),
                stride(op.getInit())};
  auto multiply =
      declare("nibble_device_multiply", SmallVector<Type>(values.size(), i64));
  LLVM::CallOp::create(builder, loc, multiply, values);
}

/// True for a matrix whose rows are as kernels read and write them.
static bool hasKernelRows(Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  SmallVector<int64_t> strides;
  int64_t offset;
  constexpr int64_t multiple = 8;
  return succeeded(type.getStridesAndOffset(strides, offset)) && offset == 0 &&
         strides[1] == 1 && !ShapedType::isDynamic(strides[0]) &&
         strides[0] % multiple == 0;
}

LogicalResult LaunchKernels::launch(FragmentMatmulOp op) {
  if (!hasKernelRows(op.getActivations()) || !hasKernelRows(op.getInit()))
    return op.emitOpError("takes matrices whose rows start at multiples of 16 "
                          "bytes");
  callLaunch(op, {llvm::to_vector(op->getOperands()), {}},
             [&](OpBuilder &builder, Operation *inside, ValueRange arguments) {
               buildMultiply(builder, cast<FragmentMatmulOp>(inside),
                             arguments);
             });
  return success();
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

void LaunchKernels::launch(linalg::LinalgOp linalg) {
  IRRewriter rewriter(linalg);
  linalg::GenericOp op = generalize(rewriter, linalg);
  if (!op)
    return;
  callLaunch(op, collectOutsideValues(op, /*repeatsGlobals=*/false),
             [&](OpBuilder &builder, Operation *inside, ValueRange arguments) {
               buildLaunch(builder, cast<linalg::GenericOp>(inside), arguments);
             });
}

void LaunchKernels::runOnOperation() {
  row = findNvidiaRow(target);
  if (!row) {
    getOperation().emitError("unknown target '")
        << target << "'; there are " << listNvidiaRows();
    return signalPassFailure();
  }
  OpBuilder builder = OpBuilder::atBlockEnd(getOperation().getBody());
  device = ModuleOp::create(builder, getOperation().getLoc(), kDeviceName);
  SmallVector<Operation *> ops;
  getOperation().walk([&](Operation *op) {
    auto linalg = dyn_cast<linalg::LinalgOp>(op);
    bool isLoop = linalg && canBeKernel(linalg) && !isShapeArithmetic(linalg);
    if (isLoop || isa<FragmentMatmulOp>(op))
      ops.push_back(op);
  });
  for (Operation *op : ops)
    if (auto product = dyn_cast<FragmentMatmulOp>(op)) {
      if (failed(launch(product)))
        return signalPassFailure();
    } else {
      launch(cast<linalg::LinalgOp>(op));
    }
  SmallVector<Attribute> formats;
  for (const ProductKernels &product : products) {
    auto number = [&](StringRef key, int64_t value) {
      return builder.getNamedAttr(key, builder.getI64IntegerAttr(value));
    };
    formats.push_back(builder.getDictionaryAttr(
        {number("bits", product.weight.storage.bits),
         number("group", product.weight.group),
         number("has_zeros", product.weight.hasZeros()),
         number("overlaps", row->canOverlap),
         builder.getNamedAttr("kernels",
                              builder.getArrayAttr(product.kernels))}));
  }
  device->setAttr(kKernelsAttrName, builder.getArrayAttr(kernels));
  device->setAttr(kProductsAttrName, builder.getArrayAttr(formats));
  kernels.clear();
  products.clear();
  launches.clear();
}
