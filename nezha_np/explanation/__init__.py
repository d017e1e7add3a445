"""The page that shows what the model computes for a text: `nezha_np.explain`.

The room is not called ``explain``, because `nezha_np.explain` is the function.
"""
