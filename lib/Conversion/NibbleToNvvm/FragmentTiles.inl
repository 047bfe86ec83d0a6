// The tiles that are launched for at most so many rows of X. Of one number of
// rows, more warps along K suit a weight with few outputs. Codes other than
// 4-bit integers take more registers, and have tiles of their own.
//   NIBBLE_TILE(rows, codes, output tiles, row tiles, warps along N, along K,
//               stages)
//   NIBBLE_WARPGROUP_TILE(…)   the same by wgmma

NIBBLE_TILE(8, Int4, 2, 1, 1, 16, 2)
NIBBLE_TILE(8, Any, 2, 1, 1, 8, 4)
NIBBLE_TILE(8, Int4, 2, 1, 1, 4, 8)
NIBBLE_TILE(8, Other, 2, 1, 1, 4, 4)
NIBBLE_TILE(16, Int4, 2, 2, 1, 16, 2)
NIBBLE_TILE(16, Any, 2, 2, 1, 8, 2)
NIBBLE_TILE(16, Int4, 2, 2, 1, 4, 4)
NIBBLE_TILE(16, Other, 2, 2, 1, 4, 2)
NIBBLE_TILE(32, Int4, 2, 4, 1, 8, 2)
NIBBLE_TILE(32, Int4, 2, 4, 1, 4, 4)
NIBBLE_TILE(32, Other, 1, 4, 2, 4, 2)
NIBBLE_TILE(256, Any, 2, 8, 4, 2, 4)
NIBBLE_TILE(kAnyRows, Any, 2, 8, 8, 1, 4)
NIBBLE_WARPGROUP_TILE(128, Any, 1, 8, 8, 1, 4)
NIBBLE_WARPGROUP_TILE(512, Any, 1, 16, 8, 1, 4)
NIBBLE_WARPGROUP_TILE(kAnyRows, Any, 2, 16, 8, 1, 4)

#undef NIBBLE_TILE
#undef NIBBLE_WARPGROUP_TILE
