//===- ConvolutionKernels.cpp - Convolutions of floats and of bytes -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A convolution is the product of its weight [channels, taps] with a matrix
// [taps, positions] that is never stored as a whole: its panels, 64 positions
// of some taps, are gathered from the input as the product needs them. Bytes
// are gathered in the same way and then interleaved by quads of taps.
//
// With one or two output channels for each input (a depthwise convolution) a
// panel would be read only once. There the sums of some columns are kept in
// registers, and each tap adds a part of a row of the input to them.
//
//===----------------------------------------------------------------------===//

#include "PanelTile.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;

int64_t nibble::getConvolutionPassChannels() { return kPassRows; }

//===----------------------------------------------------------------------===//
// Rows of the input
//===----------------------------------------------------------------------===//

namespace {
/// Reads elements of the input that lie `stride` apart.
class StridedReader {
public:
  StridedReader(KernelBuilder &kernel, const KernelTarget &target, Value x,
                int64_t stride, Factors factors)
      : kernel(kernel), x(x), stride(stride),
        hasByteMasks(target.vectorBytes == 64),
        isByte(factors == Factors::Bytes),
        lanes(isByte ? target.vectorBytes : target.lanes()),
        numbers(kernel.vector(lanes, getRowElement(kernel, factors))) {}

  int64_t getLanes() const { return lanes; }
  /// Whether a part of a vector can be read: masks of bytes that are no
  /// instruction become a branch for each lane.
  bool hasMasks() const { return !isByte || hasByteMasks; }
  /// Whether there are vectors of such elements. Masks of narrow registers
  /// cost more than they save.
  bool hasVectors() const {
    return stride == 1 || (stride == 2 && lanes > 4 && hasMasks());
  }
  Value load(Value position) { return kernel.load(x, position); }
  Value loadVector(Value position);
  /// The first `count` of a vector, and zeros.
  Value loadFirst(Value position, Value count);

private:
  Value takeEven(Value first, Value second);

  KernelBuilder &kernel;
  Value x;
  int64_t stride;
  bool hasByteMasks, isByte;
  int64_t lanes;
  VectorType numbers;
};
} // namespace

Value StridedReader::takeEven(Value first, Value second) {
  SmallVector<int64_t> even;
  for (int64_t lane = 0; lane < lanes; ++lane)
    even.push_back(2 * lane);
  return vector::ShuffleOp::create(kernel.builder, kernel.loc, first, second,
                                   even);
}

Value StridedReader::loadVector(Value position) {
  if (stride == 1)
    return kernel.loadVector(x, position, numbers);
  // The element behind the last one may be behind the buffer.
  Value first = kernel.loadVector(x, position, numbers);
  Value second = kernel.loadMasked(x, kernel.add(position, lanes), numbers,
                                   kernel.mask(kernel.index(lanes - 1), lanes));
  return takeEven(first, second);
}

Value StridedReader::loadFirst(Value position, Value count) {
  if (stride == 1)
    return kernel.loadMasked(x, position, numbers, kernel.mask(count, lanes));
  Value span = kernel.add(kernel.mul(count, 2), -1);
  Value first =
      kernel.loadMasked(x, position, numbers, kernel.mask(span, lanes));
  Value second =
      kernel.loadMasked(x, kernel.add(position, lanes), numbers,
                        kernel.mask(kernel.add(span, -lanes), lanes));
  return takeEven(first, second);
}

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

namespace {
struct ConvolutionArguments {
  ConvolutionArguments(ValueRange args)
      : w(args[0]), x(args[1]), start(args[2]), taps(args[3]), rows(args[4]),
        width(args[5]), bias(args[6]), firstBias(args[7]), y(args[8]) {}

  TileStart getStart(ConvolutionStart kind) const {
    switch (kind) {
    case ConvolutionStart::Zero:
      return {TileStart::Zero, {}, {}};
    case ConvolutionStart::Bias:
      return {TileStart::Rows, bias, firstBias};
    case ConvolutionStart::Result:
      return {TileStart::Result, {}, {}};
    }
    return {};
  }

  Value w, x, start, taps, rows, width, bias, firstBias, y;
};

/// Fills a panel with the input's numbers for some taps and the 64 positions
/// of a tile.
class WindowGatherer {
public:
  WindowGatherer(KernelBuilder &kernel, const KernelTarget &target,
                 const ConvolutionArguments &args, int64_t stride,
                 Factors factors, const PanelTileBuilder &tile)
      : kernel(kernel), target(target), args(args), stride(stride),
        factors(factors), reader(kernel, target, args.x, stride, factors),
        panel(
            kernel.scratch(kDepth * kColumns, getRowElement(kernel, factors))),
        firstColumn(tile.getFirstColumn()),
        columns(kernel.min(tile.getColumns(), kernel.index(kColumns))) {
    if (factors == Factors::Bytes)
      quads = kernel.scratch(kDepth * kColumns, kernel.i8());
  }

  void clear();
  /// The panel of some taps.
  Panel fill(Value firstK, Value countK);

private:
  void gather(Value firstK, Value countK);
  void interleave(Value countK);
  /// `count` columns of one row, of which the first lies at `source`.
  void copyRun(Value source, Value place, Value count, Value firstK,
               Value countK);
  /// body(position in the input, position in the panel) for each tap.
  void forTaps(Value source, Value place, Value firstK, Value countK,
               llvm::function_ref<void(Value, Value)> body);

  KernelBuilder &kernel;
  const KernelTarget &target;
  const ConvolutionArguments &args;
  int64_t stride;
  Factors factors;
  StridedReader reader;
  /// What is gathered, [taps, 64], and for bytes [quads, 64, 4].
  Value panel, quads;
  Value firstColumn, columns;
};
} // namespace

/// What is past the last position is multiplied too.
void WindowGatherer::clear() {
  if (factors == Factors::Bytes)
    return;
  VectorType floats = kernel.vector(target.lanes(), kernel.f32());
  kernel.ifThen(kernel.less(columns, kernel.index(kColumns)), [&] {
    kernel.loop(kernel.index(0), kernel.index(kDepth * kColumns),
                target.lanes(), [&](Value place) {
                  kernel.storeVector(kernel.splat(floats, 0.0), panel, place);
                });
  });
}

void WindowGatherer::forTaps(Value source, Value place, Value firstK,
                             Value countK,
                             llvm::function_ref<void(Value, Value)> body) {
  kernel.loop(kernel.index(0), countK, 1, [&](Value k) {
    Value tap = kernel.load(args.taps, kernel.add(firstK, k));
    body(kernel.add(source, tap), kernel.add(kernel.mul(k, kColumns), place));
  });
}

void WindowGatherer::copyRun(Value source, Value place, Value count,
                             Value firstK, Value countK) {
  Value zero = kernel.index(0);
  int64_t lanes = reader.getLanes();
  auto copyOneByOne = [&](Value first) {
    forTaps(source, place, firstK, countK, [&](Value from, Value to) {
      kernel.loop(first, count, 1, [&](Value column) {
        kernel.store(reader.load(kernel.add(from, kernel.mul(column, stride))),
                     panel, kernel.add(to, column));
      });
    });
  };
  if (!reader.hasVectors())
    return copyOneByOne(zero);
  Value whole = kernel.mul(kernel.divide(count, kernel.index(lanes)), lanes);
  auto copyVectors = [&] {
    kernel.loop(zero, whole, lanes, [&](Value column) {
      forTaps(kernel.add(source, kernel.mul(column, stride)),
              kernel.add(place, column), firstK, countK,
              [&](Value from, Value to) {
                kernel.storeVector(reader.loadVector(from), panel, to);
              });
    });
    kernel.ifThen(kernel.less(whole, count), [&] {
      if (!reader.hasMasks())
        return copyOneByOne(whole);
      Value rest = kernel.sub(count, whole);
      Value mask = kernel.mask(rest, lanes);
      forTaps(
          kernel.add(source, kernel.mul(whole, stride)),
          kernel.add(place, whole), firstK, countK, [&](Value from, Value to) {
            kernel.storeMasked(reader.loadFirst(from, rest), panel, to, mask);
          });
    });
  };
  // A tap of a whole tile is neighbours in memory.
  kernel.ifThen(
      kernel.equal(count, kColumns),
      [&] {
        forTaps(source, place, firstK, countK, [&](Value from, Value to) {
          for (int64_t column = 0; column < kColumns; column += lanes)
            kernel.storeVector(
                reader.loadVector(kernel.add(from, column * stride)), panel,
                kernel.add(to, column));
        });
      },
      copyVectors);
}

/// quads[q, column, j] = panel[4 q + j, column]
void WindowGatherer::interleave(Value countK) {
  OpBuilder &builder = kernel.builder;
  VectorType bytes = kernel.vector(reader.getLanes(), kernel.i8());
  auto mix = [&](Value a, Value b) -> Value {
    return vector::InterleaveOp::create(builder, kernel.loc, a, b);
  };
  kernel.loop(kernel.index(0), countK, 4, [&](Value k) {
    Value first = kernel.mul(k, kColumns);
    for (int64_t column = 0; column < kColumns; column += bytes.getDimSize(0)) {
      Values taps;
      for (int64_t j = 0; j < 4; ++j)
        taps.push_back(kernel.loadVector(
            panel, kernel.add(first, j * kColumns + column), bytes));
      kernel.storeVector(mix(mix(taps[0], taps[2]), mix(taps[1], taps[3])),
                         quads, kernel.add(first, 4 * column));
    }
  });
}

Panel WindowGatherer::fill(Value firstK, Value countK) {
  if (factors == Factors::Floats) {
    gather(firstK, countK);
    return {panel, kernel.index(0)};
  }
  // Past the last tap the weight is 0.
  Value taps = memref::DimOp::create(kernel.builder, kernel.loc, args.taps, 0);
  Value exist = kernel.min(countK, kernel.sub(taps, firstK));
  gather(firstK, exist);
  interleave(exist);
  return {quads, kernel.index(0)};
}

void WindowGatherer::gather(Value firstK, Value countK) {
  Value end = kernel.add(firstColumn, columns);
  Value firstRow = kernel.divide(firstColumn, args.width);
  Value lastRow = kernel.divide(kernel.add(end, -1), args.width);
  kernel.loop(firstRow, kernel.add(lastRow, 1), 1, [&](Value row) {
    Value rowStart = kernel.mul(row, args.width);
    Value from = kernel.max(firstColumn, rowStart);
    Value to = kernel.min(end, kernel.add(rowStart, args.width));
    Value source =
        kernel.add(kernel.add(args.start, kernel.load(args.rows, row)),
                   kernel.mul(kernel.sub(from, rowStart), stride));
    copyRun(source, kernel.sub(from, firstColumn), kernel.sub(to, from), firstK,
            countK);
  });
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

static std::string getName(StringRef kind, int64_t stride,
                           ConvolutionStart start, Factors factors) {
  StringRef suffix = start == ConvolutionStart::Bias     ? "_bias"
                     : start == ConvolutionStart::Result ? "_sum"
                                                         : "";
  StringRef numbers = factors == Factors::Bytes ? "i8" : "f32";
  return ("nibble_" + numbers + "_" + kind + "_stride" + Twine(stride) + suffix)
      .str();
}

static SmallVector<Type> getArguments(KernelBuilder &type, Factors factors) {
  Type element = getRowElement(type, factors), index = type.indexType();
  Type sum = getSumElement(type, factors);
  Type indices = type.buffer(index);
  return {type.matrix(element, /*contiguousRows=*/true),
          type.buffer(element),
          index,
          indices,
          indices,
          index,
          type.buffer(sum),
          index,
          type.matrix(sum, /*contiguousRows=*/true),
          index};
}

func::FuncOp nibble::getConvolutionTileFunction(ModuleOp module,
                                                const KernelTarget &target,
                                                int64_t stride,
                                                ConvolutionStart start,
                                                Factors factors) {
  func::FuncOp product = getPanelProductFunction(module, target, factors);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  SmallVector<Type> arguments = getArguments(type, factors);
  arguments.push_back(type.indexType());
  return getOrCreateFunction(
      module, getName("convolution", stride, start, factors), arguments,
      [&](KernelBuilder &kernel, ValueRange values) {
        ConvolutionArguments args(values);
        Value pass = values[9], tile = values[10];
        PanelTileBuilder builder(kernel, target, args.w, args.y, tile, factors);
        WindowGatherer gatherer(kernel, target, args, stride, factors, builder);
        gatherer.clear();
        builder.buildPass(kernel.mul(pass, kPassRows), product, kDepth,
                          args.getStart(start),
                          [&](Value firstK, Value countK) {
                            return gatherer.fill(firstK, countK);
                          });
      });
}

namespace {
/// Writes one channel of the result without a panel.
class DirectConvolution {
public:
  DirectConvolution(KernelBuilder &kernel, const KernelTarget &target,
                    const ConvolutionArguments &args, Value channel,
                    int64_t stride, ConvolutionStart start)
      : kernel(kernel), args(args), channel(channel), stride(stride),
        start(start), reader(kernel, target, args.x, stride, Factors::Floats),
        lanes(target.lanes()), floats(kernel.vector(lanes, kernel.f32())) {}

  void build();

private:
  void buildRow(Value source, Value place);
  void buildScalars(Value source, Value place);
  /// The sum of the taps' products for what `read` gives for the position of
  /// a tap, added to `sums`.
  Values sumTaps(Value source, ValueRange sums,
                 llvm::function_ref<Values(Value position)> read);
  /// What a sum of `type` starts with; `load` reads the result.
  Value getStart(Type type, llvm::function_ref<Value()> load);

  KernelBuilder &kernel;
  const ConvolutionArguments &args;
  Value channel;
  int64_t stride;
  ConvolutionStart start;
  StridedReader reader;
  int64_t lanes;
  VectorType floats;
};
} // namespace

Value DirectConvolution::getStart(Type type, llvm::function_ref<Value()> load) {
  if (start == ConvolutionStart::Result)
    return load();
  if (start == ConvolutionStart::Zero)
    return arith::ConstantOp::create(
        kernel.builder, kernel.loc,
        cast<TypedAttr>(kernel.builder.getZeroAttr(type)));
  Value bias = kernel.load(args.bias, kernel.add(args.firstBias, channel));
  auto vector = dyn_cast<VectorType>(type);
  return vector ? kernel.broadcast(bias, vector) : bias;
}

Values
DirectConvolution::sumTaps(Value source, ValueRange sums,
                           llvm::function_ref<Values(Value position)> read) {
  Value count = memref::DimOp::create(kernel.builder, kernel.loc, args.taps, 0);
  return kernel.loop(
      kernel.index(0), count, 1, sums, [&](Value k, ValueRange carried) {
        Value weight = kernel.load(args.w, {channel, k});
        Values numbers = read(kernel.add(source, kernel.load(args.taps, k)));
        Values result;
        for (auto [number, sum] : llvm::zip(numbers, carried)) {
          auto vector = dyn_cast<VectorType>(number.getType());
          Value factor = vector ? kernel.broadcast(weight, vector) : weight;
          result.push_back(kernel.fma(factor, number, sum));
        }
        return result;
      });
}

void DirectConvolution::buildScalars(Value source, Value place) {
  kernel.loop(kernel.index(0), args.width, 1, [&](Value column) {
    Value target = kernel.add(place, column);
    Value initial = getStart(
        kernel.f32(), [&] { return kernel.load(args.y, {channel, target}); });
    Value from = kernel.add(source, kernel.mul(column, stride));
    Values sums = sumTaps(from, initial, [&](Value position) -> Values {
      return {reader.load(position)};
    });
    kernel.store(sums[0], args.y, {channel, target});
  });
}

void DirectConvolution::buildRow(Value source, Value place) {
  // Sums that do not wait for each other.
  constexpr int64_t together = 4;
  Value done =
      kernel.mul(kernel.divide(args.width, kernel.index(together * lanes)),
                 together * lanes);
  kernel.loop(kernel.index(0), done, together * lanes, [&](Value column) {
    Value target = kernel.add(place, column);
    Values initial;
    for (int64_t v = 0; v < together; ++v)
      initial.push_back(getStart(floats, [&] {
        return kernel.loadVector(
            args.y, {channel, kernel.add(target, v * lanes)}, floats);
      }));
    Values sums = sumTaps(kernel.add(source, kernel.mul(column, stride)),
                          initial, [&](Value position) {
                            Values numbers;
                            for (int64_t v = 0; v < together; ++v)
                              numbers.push_back(reader.loadVector(
                                  kernel.add(position, v * lanes * stride)));
                            return numbers;
                          });
    for (int64_t v = 0; v < together; ++v)
      kernel.storeVector(sums[v], args.y,
                         {channel, kernel.add(target, v * lanes)});
  });
  kernel.loop(done, args.width, lanes, [&](Value column) {
    Value target = kernel.add(place, column);
    Value rest =
        kernel.min(kernel.sub(args.width, column), kernel.index(lanes));
    Value mask = kernel.mask(rest, lanes);
    Value initial = getStart(floats, [&] {
      return kernel.loadMasked(args.y, {channel, target}, floats, mask);
    });
    Values sums = sumTaps(kernel.add(source, kernel.mul(column, stride)),
                          initial, [&](Value position) -> Values {
                            return {reader.loadFirst(position, rest)};
                          });
    kernel.storeMasked(sums[0], args.y, {channel, target}, mask);
  });
}

void DirectConvolution::build() {
  Value positions =
      memref::DimOp::create(kernel.builder, kernel.loc, args.y, 1);
  Value rows =
      kernel.divide(positions, kernel.max(args.width, kernel.index(1)));
  kernel.loop(kernel.index(0), rows, 1, [&](Value row) {
    Value source = kernel.add(args.start, kernel.load(args.rows, row));
    Value place = kernel.mul(row, args.width);
    if (reader.hasVectors())
      buildRow(source, place);
    else
      buildScalars(source, place);
  });
}

func::FuncOp nibble::getDirectConvolutionFunction(ModuleOp module,
                                                  const KernelTarget &target,
                                                  int64_t stride,
                                                  ConvolutionStart start) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  return getOrCreateFunction(
      module, getName("direct_convolution", stride, start, Factors::Floats),
      getArguments(type, Factors::Floats),
      [&](KernelBuilder &kernel, ValueRange values) {
        ConvolutionArguments args(values);
        DirectConvolution(kernel, target, args, values[9], stride, start)
            .build();
      });
}
