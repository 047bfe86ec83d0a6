// The tiles that are launched: for at most so many rows of X, a block's tile.
//   NIBBLE_TILE(rows, output tiles, row tiles, warps along N, along K, stages)

NIBBLE_TILE(4, 1, 1, 1, 8, 4)
NIBBLE_TILE(8, 2, 1, 1, 8, 4)
NIBBLE_TILE(16, 2, 2, 1, 8, 4)
NIBBLE_TILE(32, 2, 4, 4, 2, 4)
NIBBLE_TILE(64, 2, 8, 4, 1, 4)
NIBBLE_TILE(kAnyRows, 2, 16, 8, 1, 4)

#undef NIBBLE_TILE
