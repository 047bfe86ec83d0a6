//===- DeviceBuilder.cpp - The words of GPU kernels -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "DeviceBuilder.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Integers
//===----------------------------------------------------------------------===//

Value DeviceBuilder::integer(int64_t value) {
  return arith::ConstantIntOp::create(builder, loc, value, 32);
}

Value DeviceBuilder::remainder(Value a, int64_t b) {
  return arith::RemUIOp::create(builder, loc, a, integer(b));
}

Value DeviceBuilder::bitAnd(Value a, int64_t mask) {
  return arith::AndIOp::create(builder, loc, a, integer(int32_t(mask)));
}

Value DeviceBuilder::bitOr(Value a, Value b) {
  return arith::OrIOp::create(builder, loc, a, b);
}

Value DeviceBuilder::bitOr(Value a, int64_t bits) {
  return bitOr(a, integer(int32_t(bits)));
}

Value DeviceBuilder::bitXor(Value a, Value b) {
  return arith::XOrIOp::create(builder, loc, a, b);
}

Value DeviceBuilder::shiftRight(Value a, int64_t bits) {
  if (bits == 0)
    return a;
  return arith::ShRUIOp::create(builder, loc, a, integer(bits));
}

Value DeviceBuilder::shiftLeft(Value a, int64_t bits) {
  return arith::ShLIOp::create(builder, loc, a, integer(bits));
}

Value DeviceBuilder::permuteBytes(Value a, Value b, Value selector) {
  return NVVM::PermuteOp::create(builder, loc, i32(), a, b, selector,
                                 NVVM::PermuteMode::DEFAULT);
}

Value DeviceBuilder::both(Value a, Value b) {
  return arith::AndIOp::create(builder, loc, a, b);
}

Value DeviceBuilder::select(Value condition, Value a, Value b) {
  return arith::SelectOp::create(builder, loc, condition, a, b);
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

Value DeviceBuilder::number(Type type, double value) {
  auto scalar = builder.getFloatAttr(getElementTypeOrSelf(type), value);
  if (auto vector = dyn_cast<VectorType>(type))
    return arith::ConstantOp::create(builder, loc,
                                     DenseElementsAttr::get(vector, scalar));
  return arith::ConstantOp::create(builder, loc, scalar);
}

Value DeviceBuilder::fadd(Value a, Value b) {
  return arith::AddFOp::create(builder, loc, a, b);
}

Value DeviceBuilder::fmul(Value a, Value b) {
  return arith::MulFOp::create(builder, loc, a, b);
}

Value DeviceBuilder::fma(Value a, Value b, Value c) {
  return LLVM::FMAOp::create(builder, loc, a.getType(), a, b, c);
}

Value DeviceBuilder::extend(Value value, Type type) {
  return arith::ExtFOp::create(builder, loc, type, value);
}

Value DeviceBuilder::truncate(Value value, Type type) {
  return arith::TruncFOp::create(builder, loc, type, value);
}

Value DeviceBuilder::bitcast(Value value, Type type) {
  return LLVM::BitcastOp::create(builder, loc, type, value);
}

Value DeviceBuilder::lane(Value vector, int64_t position) {
  return LLVM::ExtractElementOp::create(builder, loc, vector,
                                        integer(position));
}

Value DeviceBuilder::fromLanes(ValueRange lanes) {
  VectorType type = vector(lanes.size(), lanes.front().getType());
  Value result = LLVM::PoisonOp::create(builder, loc, type);
  for (auto [i, value] : llvm::enumerate(lanes))
    result = LLVM::InsertElementOp::create(builder, loc, type, result, value,
                                           integer(i));
  return result;
}

Value DeviceBuilder::splat(Value value, int64_t lanes) {
  return fromLanes(Values(lanes, value));
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

Value DeviceBuilder::at(Value base, Type type, Value elements) {
  return LLVM::GEPOp::create(builder, loc, base.getType(), type, base,
                             ValueRange{elements});
}

Value DeviceBuilder::atRow(Value base, Type type, Value row, Value stride,
                           Value column) {
  auto widen = [&](Value value) -> Value {
    return arith::ExtSIOp::create(builder, loc, builder.getI64Type(), value);
  };
  return at(base, type, add(mul(widen(row), widen(stride)), widen(column)));
}

Value DeviceBuilder::load(Type type, Value address, unsigned alignment) {
  return LLVM::LoadOp::create(builder, loc, type, address, alignment);
}

Value DeviceBuilder::loadConstant(Type type, Value address,
                                  unsigned alignment) {
  return LLVM::LoadOp::create(builder, loc, type, address, alignment,
                              /*isVolatile=*/false, /*isNonTemporal=*/false,
                              /*isInvariant=*/true);
}

Value DeviceBuilder::loadConstantIf(Value condition, Type type, Value address,
                                    unsigned alignment) {
  auto op = scf::IfOp::create(
      builder, loc, condition,
      [&](OpBuilder &, Location) {
        scf::YieldOp::create(builder, loc,
                             loadConstant(type, address, alignment));
      },
      [&](OpBuilder &, Location) {
        Value zero =
            arith::ConstantOp::create(builder, loc, builder.getZeroAttr(type));
        scf::YieldOp::create(builder, loc, zero);
      });
  return op.getResult(0);
}

Value DeviceBuilder::loadUncached(Type type, Value address,
                                  unsigned alignment) {
  return LLVM::LoadOp::create(builder, loc, type, address, alignment,
                              /*isVolatile=*/true);
}

void DeviceBuilder::store(Value value, Value address, unsigned alignment) {
  LLVM::StoreOp::create(builder, loc, value, address, alignment);
}

void DeviceBuilder::copyAsync(Value shared, Value global, Value bytes) {
  NVVM::CpAsyncOp::create(builder, loc, shared, global, 16,
                          NVVM::LoadCacheModifierKind::CG, bytes);
}

void DeviceBuilder::commitCopies() {
  NVVM::CpAsyncCommitGroupOp::create(builder, loc);
}

void DeviceBuilder::waitForCopies(unsigned pending) {
  NVVM::CpAsyncWaitGroupOp::create(builder, loc, pending);
}

//===----------------------------------------------------------------------===//
// Threads
//===----------------------------------------------------------------------===//

Value DeviceBuilder::threadIndex() {
  return NVVM::ThreadIdXOp::create(builder, loc, i32());
}

Value DeviceBuilder::blockIndex(unsigned dimension) {
  switch (dimension) {
  case 0:
    return NVVM::BlockIdXOp::create(builder, loc, i32());
  case 1:
    return NVVM::BlockIdYOp::create(builder, loc, i32());
  default:
    return NVVM::BlockIdZOp::create(builder, loc, i32());
  }
}

Value DeviceBuilder::gridSize(unsigned dimension) {
  switch (dimension) {
  case 0:
    return NVVM::GridDimXOp::create(builder, loc, i32());
  case 1:
    return NVVM::GridDimYOp::create(builder, loc, i32());
  default:
    return NVVM::GridDimZOp::create(builder, loc, i32());
  }
}

void DeviceBuilder::barrier() { NVVM::BarrierOp::create(builder, loc); }

void DeviceBuilder::barrier(Value identifier, int64_t threads) {
  NVVM::BarrierOp::create(builder, loc, Type(), identifier, integer(threads),
                          NVVM::BarrierReductionAttr(), Value());
}

void DeviceBuilder::syncWarp() {
  NVVM::SyncWarpOp::create(builder, loc, integer(-1));
}

Value DeviceBuilder::shuffle(Value value, int64_t mask) {
  constexpr int64_t allLanes = -1, lastLane = 31;
  Type type = value.getType();
  Value bits = type.isInteger() ? value : bitcast(value, i32());
  Value other = NVVM::ShflOp::create(builder, loc, i32(), integer(allLanes),
                                     bits, integer(mask), integer(lastLane),
                                     NVVM::ShflKind::bfly, UnitAttr());
  return type.isInteger() ? other : bitcast(other, type);
}

void DeviceBuilder::letNextKernelStart() {
  NVVM::GriddepcontrolOp::create(builder, loc,
                                 NVVM::GridDepActionKind::launch_dependents);
}

void DeviceBuilder::waitForKernelBefore() {
  NVVM::GriddepcontrolOp::create(builder, loc, NVVM::GridDepActionKind::wait);
}

void DeviceBuilder::fence() {
  NVVM::MembarOp::create(builder, loc, NVVM::MemScopeKind::GPU);
}

Value DeviceBuilder::atomicAdd(Value address, Value value) {
  return LLVM::AtomicRMWOp::create(builder, loc, LLVM::AtomicBinOp::add,
                                   address, value,
                                   LLVM::AtomicOrdering::acq_rel, "device");
}

//===----------------------------------------------------------------------===//
// Tensor cores
//===----------------------------------------------------------------------===//

static Values unpackStruct(DeviceBuilder &device, Value packed, int64_t count) {
  Values parts;
  for (int64_t i = 0; i < count; ++i)
    parts.push_back(
        LLVM::ExtractValueOp::create(device.builder, device.loc, packed, i));
  return parts;
}

Values DeviceBuilder::loadMatrices(Value address) {
  MLIRContext *context = builder.getContext();
  auto type =
      LLVM::LLVMStructType::getLiteral(context, {i32(), i32(), i32(), i32()});
  Value matrices = NVVM::LdMatrixOp::create(
      builder, loc, type, address, 4, NVVM::MMALayout::row,
      NVVM::LdStMatrixShapeAttr::get(context, 8, 8),
      NVVM::LdStMatrixEltType::B16);
  return unpackStruct(*this, matrices, 4);
}

Values DeviceBuilder::multiply(ValueRange a, ValueRange b, ValueRange c) {
  auto toHalves = [&](ValueRange registers) {
    return llvm::map_to_vector(registers, [&](Value value) {
      return bitcast(value, vector(2, f16()));
    });
  };
  auto type = LLVM::LLVMStructType::getLiteral(builder.getContext(),
                                               {f32(), f32(), f32(), f32()});
  Value product = NVVM::MmaOp::create(
      builder, loc, type, toHalves(a), toHalves(b), c,
      ArrayRef<int64_t>{16, 8, 16}, std::nullopt, std::nullopt, std::nullopt,
      std::array{NVVM::MMALayout::row, NVVM::MMALayout::col});
  return unpackStruct(*this, product, 4);
}

/// "{$0,$1,…}" of `count` operands from `first` on.
static std::string listOperands(int64_t first, int64_t count) {
  std::string text = "{";
  for (int64_t i = 0; i < count; ++i)
    text += (i == 0 ? "$" : ",$") + std::to_string(first + i);
  return text + "}";
}

Values DeviceBuilder::multiplyAsync(ValueRange a, Value descriptor,
                                    ValueRange c) {
  int64_t sums = c.size(), rows = 2 * sums;
  std::string code = "wgmma.mma_async.sync.aligned.m64n" +
                     std::to_string(rows) + "k16.f32.f16.f16 " +
                     listOperands(0, sums) + "," + listOperands(sums, 4) +
                     ",$" + std::to_string(sums + 4) + ",1,1,1,0;";
  std::string constraints;
  for (int64_t i = 0; i < sums; ++i)
    constraints += "=f,";
  constraints += "r,r,r,r,l";
  for (int64_t i = 0; i < sums; ++i)
    constraints += "," + std::to_string(i);

  Values operands;
  for (Value value : a)
    operands.push_back(bitcast(value, i32()));
  operands.push_back(descriptor);
  llvm::append_range(operands, c);
  auto type = LLVM::LLVMStructType::getLiteral(builder.getContext(),
                                               SmallVector<Type>(sums, f32()));
  auto product = LLVM::InlineAsmOp::create(
      builder, loc, type, operands, code, constraints,
      /*has_side_effects=*/true, /*is_align_stack=*/false,
      LLVM::tailcallkind::TailCallKind::None,
      LLVM::AsmDialectAttr::get(builder.getContext(), LLVM::AsmDialect::AD_ATT),
      ArrayAttr());
  return unpackStruct(*this, product.getResult(0), sums);
}

/// Fields: address / 16 in the low 14 bits; the leading offset, without meaning
/// here, from bit 16; 1024 / 16 from row to row of eight rows from bit 32;
/// swizzle over 128 bytes in bit 62.
Value DeviceBuilder::describeRows(Value shared) {
  Type i64 = builder.getI64Type();
  auto constant = [&](uint64_t value) -> Value {
    return arith::ConstantOp::create(builder, loc,
                                     builder.getIntegerAttr(i64, value));
  };
  Value address = LLVM::PtrToIntOp::create(builder, loc, i64, shared);
  Value units = arith::AndIOp::create(
      builder, loc, arith::ShRUIOp::create(builder, loc, address, constant(4)),
      constant(0x3fff));
  constexpr uint64_t fields =
      uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
  return arith::OrIOp::create(builder, loc, units, constant(fields));
}

Value DeviceBuilder::moveDescriptor(Value descriptor, int64_t bytes) {
  Value units = arith::ConstantOp::create(
      builder, loc, builder.getI64IntegerAttr(bytes / 16));
  return arith::AddIOp::create(builder, loc, descriptor, units);
}

void DeviceBuilder::fenceRegisters() {
  NVVM::WgmmaFenceAlignedOp::create(builder, loc);
}

void DeviceBuilder::fenceSharedForAsync() {
  NVVM::FenceProxyOp::create(
      builder, loc,
      NVVM::ProxyKindAttr::get(builder.getContext(),
                               NVVM::ProxyKind::async_shared),
      NVVM::SharedSpaceAttr::get(builder.getContext(),
                                 NVVM::SharedSpace::shared_cta));
}

void DeviceBuilder::commitProducts() {
  NVVM::WgmmaGroupSyncAlignedOp::create(builder, loc);
}

void DeviceBuilder::waitForProducts(unsigned pending) {
  NVVM::WgmmaWaitGroupSyncOp::create(builder, loc, pending);
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

/// The dynamic shared memory of the module's kernels.
static LLVM::GlobalOp getSharedMemory(ModuleOp module) {
  constexpr StringLiteral name = "nibble_shared";
  if (auto global = module.lookupSymbol<LLVM::GlobalOp>(name))
    return global;
  OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
  constexpr uint64_t alignment = 1024;
  return LLVM::GlobalOp::create(
      builder, module.getLoc(),
      LLVM::LLVMArrayType::get(builder.getI8Type(), 0), /*isConstant=*/false,
      LLVM::Linkage::External, name, Attribute(), alignment,
      DeviceBuilder::kShared);
}

LLVM::LLVMFuncOp nibble::createKernel(
    ModuleOp module, StringRef name, ArrayRef<Type> arguments, int64_t threads,
    llvm::function_ref<void(DeviceBuilder &, ValueRange, Value)> body) {
  LLVM::GlobalOp shared = getSharedMemory(module);
  MLIRContext *context = module.getContext();
  OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
  Location loc = module.getLoc();
  auto type =
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context), arguments);
  auto kernel = LLVM::LLVMFuncOp::create(builder, loc, name, type);
  kernel->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(),
                  builder.getUnitAttr());
  kernel->setAttr(NVVM::NVVMDialect::getReqntidAttrName(),
                  builder.getDenseI32ArrayAttr({int32_t(threads), 1, 1}));
  builder.setInsertionPointToStart(kernel.addEntryBlock(builder));
  DeviceBuilder device(builder, loc);
  body(device, kernel.getArguments(),
       LLVM::AddressOfOp::create(builder, loc, shared));
  LLVM::ReturnOp::create(builder, loc, ValueRange());
  return kernel;
}
