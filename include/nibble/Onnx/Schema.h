//===- Schema.h - Field numbers of onnx.proto -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The fields of onnx.proto (IR version 14, onnx 1.23) that Nibble models. A
// field that is not listed here is kept verbatim.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_SCHEMA_H
#define NIBBLE_ONNX_SCHEMA_H

#include "nibble/Dialect/Onnx/IR/DataTypes.h"

#include <cstdint>

namespace nibble::schema {

enum Model : uint32_t {
  ModelIRVersion = 1,
  ModelGraph = 7,
  ModelOpsetImport = 8,
  ModelFunctions = 25,
};
enum OpsetId : uint32_t { OpsetDomain = 1, OpsetVersion = 2 };
enum Graph : uint32_t {
  GraphNode = 1,
  GraphName = 2,
  GraphInitializer = 5,
  GraphInput = 11,
  GraphOutput = 12,
  GraphValueInfo = 13,
  GraphSparseInitializer = 15,
};
enum Node : uint32_t {
  NodeInput = 1,
  NodeOutput = 2,
  NodeName = 3,
  NodeOpType = 4,
  NodeAttribute = 5,
  NodeDomain = 7,
  NodeOverload = 8,
};
enum Function : uint32_t {
  FunctionName = 1,
  FunctionInput = 4,
  FunctionOutput = 5,
  FunctionAttribute = 6,
  FunctionNode = 7,
  FunctionOpsetImport = 9,
  FunctionDomain = 10,
  FunctionAttributeProto = 11,
  FunctionValueInfo = 12,
  FunctionOverload = 13,
};
enum Attribute : uint32_t {
  AttributeName = 1,
  AttributeFloat = 2,
  AttributeInt = 3,
  AttributeString = 4,
  AttributeTensor = 5,
  AttributeGraph = 6,
  AttributeFloats = 7,
  AttributeInts = 8,
  AttributeStrings = 9,
  AttributeTensors = 10,
  AttributeGraphs = 11,
  AttributeTypeProto = 14,
  AttributeTypeProtos = 15,
  AttributeType = 20,
  AttributeRefAttrName = 21,
  AttributeSparseTensor = 22,
  AttributeSparseTensors = 23,
};
enum Tensor : uint32_t {
  TensorDims = 1,
  TensorDataType = 2,
  TensorFloatData = 4,
  TensorInt32Data = 5,
  TensorStringData = 6,
  TensorInt64Data = 7,
  TensorName = 8,
  TensorRawData = 9,
  TensorDoubleData = 10,
  TensorUint64Data = 11,
  TensorExternalData = 13,
  TensorDataLocation = 14,
};
enum SparseTensor : uint32_t {
  SparseTensorValues = 1,
  SparseTensorIndices = 2,
  SparseTensorDims = 3,
};
enum KeyValue : uint32_t { EntryKey = 1, EntryValue = 2 };
enum ValueInfo : uint32_t { ValueInfoName = 1, ValueInfoType = 2 };
enum TypeProto : uint32_t {
  TypeTensor = 1,
  TypeSequence = 4,
  TypeMap = 5,
  TypeOpaque = 7,
  TypeSparseTensor = 8,
  TypeOptional = 9,
};
enum TensorTypeProto : uint32_t { TensorTypeElemType = 1, TensorTypeShape = 2 };
enum ShapeProto : uint32_t { ShapeDim = 1 };
enum DimProto : uint32_t { DimValue = 1, DimParam = 2 };
enum MapTypeProto : uint32_t { MapKeyType = 1, MapValueType = 2 };
enum ElementTypeProto : uint32_t { ElementType = 1 };
enum OpaqueTypeProto : uint32_t { OpaqueDomain = 1, OpaqueName = 2 };

using onnx::getDataType;
using onnx::getElementType;

} // namespace nibble::schema

#endif // NIBBLE_ONNX_SCHEMA_H
