"""The page that shows a sentence's way through the model: `nezha_np.explain`.

The room is not called ``explain``, because `nezha_np.explain` is the function."""
