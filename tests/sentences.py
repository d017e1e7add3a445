"""Fifty texts as people write them: English, Chinese, both, numbers, nothing at all, and very long ones."""

LONG = (
    "The museum opened in 1887 in a former cotton mill on the river, and for most of its life nobody outside the town "
    "had heard of it. Then a retired postman left it his collection: four thousand letters that had never reached "
    "anyone, sorted by the reason why. Some had no stamp, some no street, and one, written in pencil on the back of a "
    "theatre bill, was addressed to whoever lives in the yellow house now. 博物馆去年重新开放，参观的人比以前多了三倍。"
)

SENTENCES = (
    # English
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods.",
    "A cheetah is running behind its prey.",
    "How do I reset my password?",
    "I forgot my password and cannot log in.",
    "Please cancel my subscription at the end of the month.",
    "Which planet is known as the red planet?",
    "Mars, known for its reddish appearance, is often referred to as the red planet.",
    "The central bank raised interest rates by a quarter of a percentage point.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "NASA's Voyager 1 left the heliosphere in August 2012.",
    "naïve café déjà-vu Ångström – “curly quotes” … and an em-dash — here",
    "WHY ARE YOU SHOUTING?!",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "ok",
    # Chinese
    "今天天气很好。",
    "外面阳光明媚！",
    "房间很干净，服务也很热情。",
    "这家酒店的早餐一般，但是位置很方便。",
    "中国人民银行今天公布了新的利率。",
    "我忘记了密码，无法登录。",
    "请问最近的地铁站怎么走？",
    "春眠不覺曉，處處聞啼鳥。",
    "北京是中华人民共和国的首都。",
    "好",
    # both, and other scripts
    "我的 iPhone 15 Pro 电池用了2天就没电了！",
    "The hotel is 非常 good, 价格也便宜。",
    "Python里的list和tuple有什么区别？",
    "他说：“See you tomorrow”，然后就走了。",
    "東京の天気は晴れです。",
    "Привет, как дела?",
    "مرحبا بالعالم",
    # numbers, addresses, code, signs
    "3.14159 26535 89793",
    "On 2023-11-05 at 14:30 UTC, 1,234,567.89 USD were moved.",
    "https://example.org/search?q=relative+position&lang=zh#results",
    "Write to first.last@example.com, or call +49 (0)30 1234567.",
    "for i in range(10): print(i ** 2)  # squares",
    "I ❤️ 🍜 and 👩‍💻👨‍👩‍👧!",
    "!!! ??? ... ———",
    # almost nothing
    "",
    " ",
    "\t \u3000\n",
    # long: more than 128 tokens, where this tokenizer.json cuts, and more than 512, where the positions end
    LONG,
    f"{LONG} {LONG}",
    " ".join([LONG] * 6),
)
