//===- Npz.cpp - NumPy's archives of arrays -------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A .npz file is a ZIP archive (PKWARE's APPNOTE.TXT) of .npy files (the format
// is described in numpy/lib/format.py).
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/Npz.h"

#include "nibble/Support/MappedFile.h"
#include "nibble/Support/OutputFile.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FormatVariadic.h"

#include <optional>
#include <zlib.h>

using namespace nibble;
using llvm::ArrayRef;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;
namespace endian = llvm::support::endian;

namespace {
constexpr uint32_t kLocalHeader = 0x04034b50, kEntry = 0x02014b50,
                   kEnd = 0x06054b50, kEnd64 = 0x06064b50;
constexpr uint64_t kLarge = 0xffffffff;

/// What the directory of the archive says about a member.
struct Member {
  std::string name;
  uint64_t packedSize = 0, size = 0, offset = 0;
  unsigned method = 0;
  uint32_t checksum = 0;
};
} // namespace

static Error makeError(StringRef path, const llvm::Twine &what) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                 "'" + path + "': " + what);
}

static uint64_t read(ArrayRef<char> bytes, size_t position, unsigned size) {
  switch (size) {
  case 2:
    return endian::read16le(bytes.data() + position);
  case 4:
    return endian::read32le(bytes.data() + position);
  default:
    return endian::read64le(bytes.data() + position);
  }
}

/// zlib takes no address for an order to begin anew.
static uint32_t updateChecksum(uint32_t checksum, ArrayRef<char> bytes) {
  if (bytes.empty())
    return checksum;
  return crc32_z(checksum, reinterpret_cast<const Bytef *>(bytes.data()),
                 bytes.size());
}

//===----------------------------------------------------------------------===//
// The archive
//===----------------------------------------------------------------------===//

/// Position and number of the entries of the directory.
static std::optional<std::pair<uint64_t, uint64_t>>
findDirectory(ArrayRef<char> file) {
  // The end record, of 22 bytes, is the last but a comment.
  constexpr size_t size = 22, maxComment = 65535;
  for (size_t back = size;
       back <= std::min<size_t>(file.size(), size + maxComment); ++back) {
    size_t at = file.size() - back;
    if (read(file, at, 4) != kEnd)
      continue;
    uint64_t count = read(file, at + 10, 2), start = read(file, at + 16, 4);
    // The locator of the record with 64-bit numbers is right before.
    if ((start == kLarge || count == 0xffff) && at >= 20) {
      uint64_t large = read(file, at - 12, 8);
      if (file.size() < 56 || large > file.size() - 56 ||
          read(file, large, 4) != kEnd64)
        return std::nullopt;
      count = read(file, large + 32, 8);
      start = read(file, large + 48, 8);
    }
    return std::make_pair(start, count);
  }
  return std::nullopt;
}

/// Replaces sizes that need 64 bits by those of the extra field.
static bool readLargeSizes(ArrayRef<char> extra, Member &member) {
  while (extra.size() >= 4) {
    uint64_t id = read(extra, 0, 2), size = read(extra, 2, 2);
    if (size > extra.size() - 4)
      return false;
    ArrayRef<char> data = extra.slice(4, size);
    extra = extra.drop_front(4 + size);
    if (id != 1)
      continue;
    for (uint64_t *field : {&member.size, &member.packedSize, &member.offset}) {
      if (*field != kLarge)
        continue;
      if (data.size() < 8)
        return false;
      *field = read(data, 0, 8);
      data = data.drop_front(8);
    }
  }
  return true;
}

static Expected<std::vector<Member>> readDirectory(ArrayRef<char> file,
                                                   StringRef path) {
  auto directory = findDirectory(file);
  if (!directory)
    return makeError(path, "is no .npz archive");
  auto damaged = [&] { return makeError(path, "its directory is damaged"); };
  auto [at, count] = *directory;
  std::vector<Member> members;
  for (uint64_t i = 0; i < count; ++i) {
    constexpr size_t fixed = 46;
    if (file.size() < fixed || at > file.size() - fixed ||
        read(file, at, 4) != kEntry)
      return damaged();
    Member member;
    member.method = read(file, at + 10, 2);
    member.checksum = read(file, at + 16, 4);
    member.packedSize = read(file, at + 20, 4);
    member.size = read(file, at + 24, 4);
    member.offset = read(file, at + 42, 4);
    uint64_t name = read(file, at + 28, 2), extra = read(file, at + 30, 2),
             comment = read(file, at + 32, 2);
    if (name + extra + comment > file.size() - at - fixed)
      return damaged();
    member.name.assign(file.data() + at + fixed, name);
    if (!readLargeSizes(file.slice(at + fixed + name, extra), member))
      return damaged();
    at += fixed + name + extra + comment;
    members.push_back(std::move(member));
  }
  return members;
}

/// The bytes of a member as they were before compression.
static std::optional<std::vector<char>> unpack(ArrayRef<char> file,
                                               const Member &member) {
  constexpr size_t fixed = 30;
  if (file.size() < fixed || member.offset > file.size() - fixed ||
      read(file, member.offset, 4) != kLocalHeader)
    return std::nullopt;
  uint64_t start = member.offset + fixed + read(file, member.offset + 26, 2) +
                   read(file, member.offset + 28, 2);
  if (start > file.size() || member.packedSize > file.size() - start)
    return std::nullopt;
  ArrayRef<char> packed = file.slice(start, member.packedSize);
  // Deflate shrinks by a factor of 1032 at most.
  if (member.method == 0 ? member.size != packed.size()
                         : member.size / 1032 > packed.size())
    return std::nullopt;
  std::vector<char> bytes;
  if (member.method == 0) {
    bytes.assign(packed.begin(), packed.end());
  } else {
    bytes.resize(member.size);
    z_stream stream = {};
    if (member.method != 8 || packed.size() > kLarge || bytes.size() > kLarge ||
        inflateInit2(&stream, -MAX_WBITS) != Z_OK)
      return std::nullopt;
    stream.next_in =
        reinterpret_cast<Bytef *>(const_cast<char *>(packed.data()));
    stream.avail_in = packed.size();
    stream.next_out = reinterpret_cast<Bytef *>(bytes.data());
    stream.avail_out = bytes.size();
    int code = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    if (code != Z_STREAM_END || stream.avail_out != 0)
      return std::nullopt;
  }
  if (updateChecksum(0, bytes) != member.checksum)
    return std::nullopt;
  return bytes;
}

//===----------------------------------------------------------------------===//
// Arrays
//===----------------------------------------------------------------------===//

/// What follows `'key': ` in the header of an array.
static StringRef getField(StringRef header, StringRef key) {
  auto [before, after] = header.split(("'" + key + "':").str());
  return after.ltrim();
}

static bool readShape(StringRef text, std::vector<int64_t> &shape) {
  if (!text.consume_front("("))
    return false;
  llvm::SmallVector<StringRef> sizes;
  text.take_until([](char c) { return c == ')'; })
      .split(sizes, ',', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef size : sizes) {
    int64_t number;
    if (size.trim().empty())
      continue;
    if (size.trim().getAsInteger(10, number) || number < 0)
      return false;
    shape.push_back(number);
  }
  return true;
}

static Expected<NpyArray> readArray(StringRef path, StringRef name,
                                    ArrayRef<char> bytes) {
  auto fail = [&](const llvm::Twine &what) {
    return makeError(path, "array '" + name + "' " + what);
  };
  StringRef magic("\x93NUMPY", 6);
  if (bytes.size() < 12 || StringRef(bytes.data(), 6) != magic)
    return fail("is no .npy file");
  size_t start = bytes[6] == 1 ? 10 : 12;
  uint64_t length = read(bytes, 8, bytes[6] == 1 ? 2 : 4);
  if (length > bytes.size() - start)
    return fail("is cut off");
  StringRef header(bytes.data() + start, length);
  NpyArray array;
  array.name = name.str();
  StringRef kind = getField(header, "descr");
  if (!kind.consume_front("'"))
    return fail("has records for elements");
  kind = kind.take_until([](char c) { return c == '\''; });
  if (!kind.empty() && StringRef("<|=").contains(kind.front()))
    kind = kind.drop_front();
  unsigned size = 0;
  if (kind.size() < 2 || !StringRef("biufV").contains(kind.front()) ||
      kind.drop_front().getAsInteger(10, size) || size == 0)
    return fail("has elements of type '" + kind +
                "', which are no little-endian numbers");
  array.kind = kind.str();
  if (!getField(header, "fortran_order").starts_with("False"))
    return fail("is stored column by column; save numpy.ascontiguousarray of "
                "it");
  if (!readShape(getField(header, "shape"), array.shape))
    return fail("has no shape");
  uint64_t expected = size;
  for (int64_t extent : array.shape)
    if (__builtin_mul_overflow(expected, uint64_t(extent), &expected))
      return fail("has a shape that is too large");
  ArrayRef<char> data = bytes.drop_front(start + length);
  if (data.size() != expected)
    return fail("has " + llvm::Twine(data.size()) + " bytes where its shape " +
                "takes " + llvm::Twine(expected));
  array.bytes.assign(data.begin(), data.end());
  return array;
}

Expected<std::vector<NpyArray>> nibble::readNpz(StringRef path) {
  auto file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  auto members = readDirectory((*file)->getBytes(), path);
  if (!members)
    return members.takeError();
  std::vector<NpyArray> arrays;
  for (const Member &member : *members) {
    StringRef name(member.name);
    name.consume_back(".npy");
    auto bytes = unpack((*file)->getBytes(), member);
    if (!bytes)
      return makeError(path, "array '" + name + "' is damaged");
    auto array = readArray(path, name, *bytes);
    if (!array)
      return array.takeError();
    arrays.push_back(std::move(*array));
  }
  return arrays;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

static std::string makeHeader(const NpyArray &array) {
  std::string shape;
  for (int64_t extent : array.shape)
    shape += std::to_string(extent) + ",";
  bool isByte = array.kind.substr(1) == "1";
  std::string text = llvm::formatv(
      "{{'descr': '{0}{1}', 'fortran_order': False, 'shape': ({2}), }",
      isByte ? "|" : "<", array.kind, shape);
  // With what stands before it, a multiple of 64 bytes.
  constexpr size_t before = 10;
  text.append(63 - (before + text.size()) % 64, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

namespace {
class ArchiveWriter {
public:
  explicit ArchiveWriter(llvm::raw_ostream &os) : os(os) {}

  bool add(const NpyArray &array) {
    std::string name = array.name + ".npy", header = makeHeader(array);
    uint64_t size = header.size() + array.bytes.size();
    if (size >= kLarge || position >= kLarge || name.size() > 0xffff)
      return false;
    uint32_t checksum = updateChecksum(0, header);
    checksum = updateChecksum(checksum, array.bytes);
    std::string common = describe(checksum, size, name.size());
    std::string local = number(kLocalHeader, 4) + common + name;
    directory += number(kEntry, 4) + number(20, 2) + common + number(0, 10) +
                 number(position, 4) + name;
    os << local << header;
    os.write(array.bytes.data(), array.bytes.size());
    position += local.size() + size;
    ++count;
    return true;
  }

  bool finish() {
    if (position >= kLarge || count >= 0xffff)
      return false;
    os << directory << number(kEnd, 4) << number(0, 4) << number(count, 2)
       << number(count, 2) << number(directory.size(), 4) << number(position, 4)
       << number(0, 2);
    return true;
  }

private:
  static std::string number(uint64_t value, unsigned size) {
    std::string bytes;
    for (unsigned i = 0; i < size; ++i)
      bytes += i < 8 ? static_cast<char>(value >> (8 * i)) : '\0';
    return bytes;
  }
  /// The fields that a member's own header and its entry have in common: not
  /// compressed, of 1 January 1980, names in UTF-8.
  static std::string describe(uint32_t checksum, uint64_t size,
                              uint64_t nameSize) {
    return number(20, 2) + number(0x800, 2) + number(0, 2) + number(0, 2) +
           number(0x21, 2) + number(checksum, 4) + number(size, 4) +
           number(size, 4) + number(nameSize, 2) + number(0, 2);
  }

  llvm::raw_ostream &os;
  std::string directory;
  uint64_t position = 0, count = 0;
};
} // namespace

Error nibble::writeNpz(StringRef path, ArrayRef<NpyArray> arrays) {
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  ArchiveWriter writer((*file)->getStream());
  for (const NpyArray &array : arrays)
    if (!writer.add(array))
      return makeError(path, "cannot hold array '" + array.name +
                                 "': archives of 4 GiB and more are not "
                                 "supported");
  if (!writer.finish())
    return makeError(path, "archives of 4 GiB and more are not supported");
  return (*file)->commit();
}

//===----------------------------------------------------------------------===//
// Types in words
//===----------------------------------------------------------------------===//

std::string nibble::getNumpyKind(uint8_t code, uint8_t bits) {
  const char *letters = "iufVVVb";
  char letter = code < 7 ? letters[code] : 'V';
  return std::string(1, letter) + std::to_string(bits / 8);
}

std::string nibble::describeNumpyKind(StringRef kind) {
  unsigned size = 0;
  kind.drop_front().getAsInteger(10, size);
  std::string bits = std::to_string(8 * size);
  switch (kind.front()) {
  case 'i':
    return "int" + bits;
  case 'u':
    return "uint" + bits;
  case 'f':
    return "float" + bits;
  case 'b':
    return "bool";
  default:
    return "raw" + bits;
  }
}

std::string nibble::describeArray(StringRef kind, ArrayRef<int64_t> shape) {
  std::string text = describeNumpyKind(kind) + "[";
  llvm::raw_string_ostream os(text);
  llvm::interleaveComma(shape, os);
  return text + "]";
}
