"""A small port of a training loop, in plain NumPy and float32, with the mistakes that ports make as switches.

Its optimisers are written from the papers' formulas, apart from those of the package.
"""

import numpy as np

import nezha_np as nz
from nezha_np.training.accumulation import count_labels, gradient_shares

F = np.float32


def decayed(name):
    return "LayerNorm" not in name and not name.endswith("bias")


def norm(*arrays):
    return F(np.sqrt(sum(np.sum(np.square(a), dtype=F) for a in arrays)))


def gradients_of(bundle, weights, t, mistake):
    """Loss and gradients of step t, from 1 on."""
    recipe, parts, head = bundle.training, bundle.batches[t - 1], getattr(nz, bundle.head)
    if mistake == "tied":
        config = weights.config.replace(tie_word_embeddings=False)
        tensors = {**weights, "cls.predictions.decoder.weight": weights["embeddings.word_embeddings.weight"].copy()}
        weights = nz.Weights(tensors, config)
    counts = count_labels(head, parts)
    scale = recipe.loss_scale
    loss, total = 0.0, {}
    for index, part in enumerate(parts):
        number = t if mistake == "mask of the next step" else t - 1
        seed = None if recipe.dropout_seed is None else (recipe.dropout_seed, number, *([index] if index else []))
        own = count_labels(head, [part]) if mistake == "mean of parts" else counts
        losses, found = gradient_shares(head, weights, part, counts=own, dropout_seed=seed, loss_scale=scale)
        factor = F(1 / len(parts)) if mistake == "mean of parts" else F(1)
        loss += float(factor) * sum(losses.values())
        for name, gradient in found.items():
            total[name] = total.get(name, F(0)) + gradient * factor
    total.pop("cls.predictions.decoder.weight", None)
    if mistake == "mean over tokens":
        factor = counts["loss"] / sum(np.size(part["input_ids"]) for part in parts)
        loss, total = loss * factor, {name: gradient * F(factor) for name, gradient in total.items()}
    if mistake == "scale":
        total = {name: gradient * F(scale) for name, gradient in total.items()}
    return F(loss), total


def run(bundle, mistake=None):
    """Train as the recipe of a bundle says, and return every number under the bundle's names."""
    recipe, given = bundle.training, {}
    weights = bundle.weights().to(dtype="float32")
    b1, b2, eps, decay = F(recipe.beta1), F(recipe.beta2), F(recipe.eps), F(recipe.weight_decay)
    m, v = {}, {}
    for t in range(1, recipe.steps + 1):
        loss, gradients = gradients_of(bundle, weights, t, mistake)
        if mistake == "not set to zero" and t > 1:  # clipping wrote into them
            gradients = {name: g + given[f"steps/{t - 1}/clipped/{name}"] for name, g in gradients.items()}
        if mistake == "moments anew":
            m, v = {}, {}
        total = norm(*gradients.values())
        at = f"steps/{t}"
        given |= {f"{at}/loss": loss, f"{at}/norm": total, f"{at}/step": t}
        updates, ratios, new = {}, {}, dict(weights)
        for name, g in gradients.items():
            given[f"{at}/gradients/{name}"] = g
            own = norm(g) if mistake == "clip by tensor" else total
            if own > recipe.clip_norm and mistake != "clip after":
                g = g * (F(recipe.clip_norm) / own)
            given[f"{at}/clipped/{name}"] = g
            x = weights[name]
            if mistake == "L2" and decayed(name):
                g = g + decay * x
            m[name] = b1 * m.get(name, F(0)) + (1 - b1) * g
            v[name] = b2 * v.get(name, F(0)) + (1 - b2) * g * g
            count = {"t from 0": t - 1, "moments anew": 1}.get(mistake, t)
            corrects = recipe.optimizer != "bert_adam" and mistake != "no correction"
            with np.errstate(all="ignore"):
                m_hat = m[name] / (1 - b1**count) if corrects else m[name]
                v_hat = v[name] / (1 - b2**count) if corrects else v[name]
                r = m_hat / (np.sqrt(v_hat + eps) if mistake == "eps under" else np.sqrt(v_hat) + eps)
            decays = (decayed(name) or mistake == "decay everywhere") and mistake != "L2"
            updates[name] = r + decay * x if decays else r
            if recipe.optimizer == "lamb":
                of_ratio = updates[name]
                if recipe.variant == "nezha":
                    of_ratio = m_hat / np.sqrt(v_hat + eps) + decay * x
                if mistake == "ratio without decay":
                    of_ratio = of_ratio - decay * x if recipe.variant == "nezha" or decayed(name) else of_ratio
                ratios[name] = norm(x) / norm(of_ratio) if norm(x) > 0 and norm(of_ratio) > 0 else F(1)
                if recipe.variant == "nezha" and mistake != "ratio not clipped":
                    ratios[name] = min(ratios[name], F(10))
        if mistake == "one ratio":
            whole = norm(*(weights[name] for name in updates)) / norm(*updates.values())
            ratios = dict.fromkeys(ratios, F(whole))
        rate = F(recipe.learning_rates[t if mistake == "rate of the next" else t - 1])
        for name, u in updates.items():
            times = 2 if mistake == "tied stepped twice" and name == "embeddings.word_embeddings.weight" else 1
            new[name] = weights[name] - F(times) * rate * ratios.get(name, F(1)) * u
            given |= {f"{at}/first_moment/{name}": m[name], f"{at}/second_moment/{name}": v[name]}
            given |= {f"{at}/update/{name}": u, f"{at}/weights/{name}": new[name]}
        given |= {f"{at}/trust_ratio/{name}": ratio for name, ratio in ratios.items()}
        weights = nz.Weights(new, weights.config)
    return given
