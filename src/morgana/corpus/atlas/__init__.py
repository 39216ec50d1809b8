"""Atlas, the bundled world: aerial tiles with exact ground truth, and the articles that describe them."""
