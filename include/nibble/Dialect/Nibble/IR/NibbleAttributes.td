//===- NibbleAttributes.td - How a tensor is stored -------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_TD
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/TensorEncoding.td"
include "nibble/Dialect/Nibble/IR/NibbleDialect.td"

class Nibble_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<Nibble_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def Nibble_StorageAttr : Nibble_Attr<"Storage", "storage"> {
  let summary = "What one code of a quantized tensor is";
  let description = [{
    `i4`: a signed integer of 4 bits; `u4`: an unsigned one; `f8E4M3FN`: a
    small float; `nf4`, `fp4` or `codebook<[-1.0, 0.0, 0.5, 1.0]>`: an index
    into a list of values (Spec C1, C2).

    Alone it prints as `#nibble.storage<u4>`, inside an encoding as `u4`.
  }];
  let parameters = (ins
    "::nibble::CodeKind":$kind,
    "unsigned":$bitWidth,
    // The values of an inline code book; null for every other kind.
    "::mlir::DenseF32ArrayAttr":$values
  );
  let builders = [
    AttrBuilder<(ins "::nibble::CodeKind":$kind), [{
      return $_get($_ctxt, kind, getFixedBitWidth(kind), nullptr);
    }]>
  ];
  let extraClassDeclaration = [{
    /// An integer storage; `bitWidth` is one of those that Spec C1 lists.
    static StorageAttr getInteger(::mlir::MLIRContext *context,
                                  unsigned bitWidth, bool isSigned);
    /// The code book with these values (Spec C2); codes take as many bits as
    /// the last index needs.
    static StorageAttr getCodeBook(::mlir::MLIRContext *context,
                                   ::llvm::ArrayRef<float> values);
    /// The width of a kind that has only one; 0 for the others.
    static unsigned getFixedBitWidth(CodeKind kind);

    bool isInteger() const {
      return getKind() == CodeKind::SignedInteger ||
             getKind() == CodeKind::UnsignedInteger;
    }
    bool isSigned() const { return getKind() == CodeKind::SignedInteger; }
    bool isFloat() const {
      return getKind() == CodeKind::F8E4M3FN ||
             getKind() == CodeKind::F8E5M2 ||
             getKind() == CodeKind::F4E2M1FN;
    }
    bool isCodeBook() const { return !isInteger() && !isFloat(); }

    /// Element type of a tensor of these codes: `iN` for signed integers,
    /// `uiN` for unsigned ones and code books, the float type itself for
    /// floats (Spec S1).
    ::mlir::Type getCodeType() const;

    /// Smallest and largest code of an integer storage, or index of a code book.
    int64_t getMinimumCode() const;
    int64_t getMaximumCode() const;
  }];
}

def Nibble_OutliersAttr : Nibble_Attr<"Outliers", "outliers"> {
  let summary = "How the few values that do not fit the codes are kept";
  let description = [{
    `columns<0, f16>`: whole slices at some indices along dimension 0, stored
    as f16; `sparse<f16>`: single elements with their coordinates (Spec S8).
  }];
  let parameters = (ins
    "::nibble::OutlierKind":$kind,
    // The dimension along which columns are picked; 0 for `sparse`.
    "int64_t":$axis,
    "::mlir::Type":$valueType
  );
}

def Nibble_LayoutAttr : Nibble_Attr<"Layout", "layout"> {
  let summary = "A named physical packing of a quantized tensor's parts";
  let description = [{
    `split_halves` or `tiles {rows = 16 : i64}`. Only code generation sets a
    layout; a tensor without one holds its codes in logical order (Spec C13).
  }];
  let parameters = (ins
    "::mlir::StringAttr":$name,
    "::mlir::DictionaryAttr":$parameters
  );
}

def Nibble_QuantizedAttr : Nibble_Attr<"Quantized", "quantized",
    [DeclareAttrInterfaceMethods<VerifiableTensorEncoding>]> {
  let summary = "The encoding of a quantized tensor";
  let description = [{
    ```
    quantized ::= `#nibble.quantized` `<` body `>`
    body      ::= storage `,` `block` `=` block `,` `scale` `=` scale
                  (`,` `zero` `=` zero)?
                  (`,` `outliers` `=` outliers)?
                  (`,` `layout` `=` layout)?
    storage   ::= `i2` ... `i8` | `i16` | `i32` | `u2` ... `u8` | `u16`
                | `f8E4M3FN` | `f8E5M2` | `f4E2M1FN`
                | `nf4` | `fp4` | `codebook` `<` `[` float, ... `]` `>`
    block     ::= `[` extent, ... `]` | `flat` `[` integer `]`
    extent    ::= integer | `*`
    scale     ::= `f32` | `f16` | `bf16` | `f8E8M0FNU` | `quantized` `<` body `>`
    zero      ::= integer storage | `f32` | `f16` | `bf16` | `quantized` `<` body `>`
    outliers  ::= `columns` `<` integer `,` type `>` | `sparse` `<` type `>`
    layout    ::= name dictionary?
    ```

    A tensor of shape `d` has one scale (and zero point) per block, in a grid of
    `ceil(d[i] / block[i])` along each dimension; an extent `*` takes the whole
    dimension. `flat [B]` cuts the elements in row-major order into runs of `B`
    instead, and the grid has one dimension (Spec S2).

    ```mlir
    #nibble.quantized<i8, block = [*, 1], scale = f32>                          // per output channel
    #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>              // groups of 32 rows
    #nibble.quantized<nf4, block = [64, 1],
                      scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>
    #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = columns<0, f16>>
    ```
  }];
  let parameters = (ins
    "::nibble::StorageAttr":$storage,
    // Extents, kWholeExtent for `*`; a single one when flat.
    OptionalArrayRefParameter<"int64_t">:$block,
    "bool":$flat,
    // TypeAttr of a float, or a nested QuantizedAttr.
    "::mlir::Attribute":$scale,
    // Null, an integer StorageAttr, TypeAttr of a float, or a QuantizedAttr.
    "::mlir::Attribute":$zero,
    // Null for none.
    "::nibble::OutliersAttr":$outliers,
    "::nibble::LayoutAttr":$layout
  );
  let builders = [
    // Blocks of this shape with scales of a float type.
    AttrBuilderWithInferredContext<(ins
        "::nibble::StorageAttr":$storage,
        "::llvm::ArrayRef<int64_t>":$block,
        "::mlir::Attribute":$scale,
        CArg<"::mlir::Attribute", "{}">:$zero), [{
      return $_get(storage.getContext(), storage, block, false, scale, zero,
                   ::nibble::OutliersAttr(), ::nibble::LayoutAttr());
    }]>,
    AttrBuilderWithInferredContext<(ins
        "::nibble::StorageAttr":$storage,
        "::llvm::ArrayRef<int64_t>":$block,
        "bool":$flat,
        "::mlir::Attribute":$scale,
        "::mlir::Attribute":$zero,
        "::nibble::OutliersAttr":$outliers,
        "::nibble::LayoutAttr":$layout), [{
      return $_get(storage.getContext(), storage, block, flat, scale, zero,
                   outliers, layout);
    }]>
  ];
  let skipDefaultBuilders = 1;
  let extraClassDeclaration = [{
    /// A block extent `*`: the whole dimension.
    static constexpr int64_t kWholeExtent = -1;

    bool hasZero() const { return static_cast<bool>(getZero()); }
    bool hasOutliers() const { return static_cast<bool>(getOutliers()); }
    bool hasLayout() const { return static_cast<bool>(getLayout()); }
    bool hasNestedScale() const;
    bool hasNestedZero() const;

    /// Shape of the scales (and zero points) of a tensor of this shape; a
    /// dynamic dimension gives a dynamic extent unless one block covers it.
    ::llvm::SmallVector<int64_t> getGridShape(::llvm::ArrayRef<int64_t> shape) const;

    /// This encoding with another layout (null for none).
    QuantizedAttr withLayout(::nibble::LayoutAttr layout) const;
  }];
}

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_TD
