"""Personal data: literal hits and literal non-hits in Chinese and English, checksums, fakes."""

from __future__ import annotations

import random
import time

import pytest

from luthier.errors import UsageError
from luthier.prepare import fakes, pii
from luthier.prepare.span import Span, revert
from luthier.redact import SHAPES

# text -> [(kind, what is found)]
POSITIVE = [
    # e-mail
    ("请发到 zhang.san@163.com 谢谢", "email", "zhang.san@163.com"),
    ("邮箱：li_si88@qq.com。", "email", "li_si88@qq.com"),
    ("联系wangwu@mail.tsinghua.edu.cn即可", "email", "wangwu@mail.tsinghua.edu.cn"),
    ("Write to Jane.Doe+work@gmail.com today.", "email", "Jane.Doe+work@gmail.com"),
    ("<mailto:o.neil@trinity.ie>", "email", "o.neil@trinity.ie"),
    ("邮箱ｂｏｂ＠ｑｑ．ｃｏｍ", "email", "ｂｏｂ＠ｑｑ．ｃｏｍ"),
    # mobile numbers
    ("我的手机是13800138000，请回电", "phone", "13800138000"),
    ("手机１３８００１３８０００", "phone", "１３８００１３８０００"),
    ("138-0013-8000", "phone", "138-0013-8000"),
    ("拨打 138 0013 8000 咨询", "phone", "138 0013 8000"),
    ("+8613912345678", "phone", "13912345678"),
    ("+86 18612345678", "phone", "18612345678"),
    ("0086-19912345678", "phone", "19912345678"),
    ("张三15912345678北京", "phone", "15912345678"),
    ("订单已发货，请联系李先生17712345678", "phone", "17712345678"),
    ("订单联系电话：16612345678", "phone", "16612345678"),
    ("电话13912345678,18612345678", "phone", "13912345678"),
    ("My mobile is 19812345678.", "phone", "19812345678"),
    # landlines
    ("公司座机010-62751234", "phone", "010-62751234"),
    ("0755-26770000转", "phone", "0755-26770000"),
    ("(021)54321234", "phone", "(021)54321234"),
    ("传真 0571-88889999-801", "phone", "0571-88889999-801"),
    ("电话：0571 8888 9999", "phone", "0571 8888 9999"),
    ("电话02087654321", "phone", "02087654321"),
    # other countries
    ("Call me at (415) 555-2671 tonight", "phone", "(415) 555-2671"),
    ("212-736-5000", "phone", "212-736-5000"),
    ("1-212-736-5000", "phone", "212-736-5000"),
    ("ring 312.736.5000", "phone", "312.736.5000"),
    ("phone 312 736 5000", "phone", "312 736 5000"),
    ("+1 212 736 5000", "phone", "+1 212 736 5000"),
    ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
    ("+49 30 901820", "phone", "+49 30 901820"),
    ("+81-3-1234-5678", "phone", "+81-3-1234-5678"),
    ("+33 6 12 34 56 78", "phone", "+33 6 12 34 56 78"),
    ("+7 495 123 45 67", "phone", "+7 495 123 45 67"),
    ("Phone: 07911 123456", "phone", "07911 123456"),
    ("联系方式：85212345678", "phone", "85212345678"),
    # resident ID cards
    ("身份证号11010519491231002X", "id_card", "11010519491231002X"),
    ("身份证号11010519491231002x。", "id_card", "11010519491231002x"),
    ("440524188001010014", "id_card", "440524188001010014"),
    ("她的证件 110105 19491231 002X 已过期", "id_card", "110105 19491231 002X"),
    ("ID card 11010519491231002X belongs to", "id_card", "11010519491231002X"),
    # bank cards (test numbers of the schemes)
    ("Visa 4012888888881881", "bank_card", "4012888888881881"),
    ("5555-5555-5555-4444 is not it, 5105-1051-0510-5100 is", "bank_card", "5105-1051-0510-5100"),
    ("amex 378282246310005", "bank_card", "378282246310005"),
    ("3782 822463 10005", "bank_card", "3782 822463 10005"),
    ("JCB 3530111333300000", "bank_card", "3530111333300000"),
    ("Discover 6011000990139424", "bank_card", "6011000990139424"),
    # secrets
    ("token hf_" + "aB3" * 12, "secret", "hf_" + "aB3" * 12),
    ("export KEY=sk-proj-" + "x1Y" * 10, "secret", "sk-proj-" + "x1Y" * 10),
    ("AKIA" + "ABCD1234" * 2, "secret", "AKIA" + "ABCD1234" * 2),
    ("ghp_" + "a1B2" * 9, "secret", "ghp_" + "a1B2" * 9),
    ("地址 https://root:hunter2@db.corp.cn/x", "secret", "root:hunter2"),
    # the internet
    ("服务器47.93.12.8挂了", "ip", "47.93.12.8"),
    ("login from 185.220.101.4 failed", "ip", "185.220.101.4"),
    ("http://121.40.3.77:8080/a", "ip", "121.40.3.77"),
    ("IP地址：13.5.7.9", "ip", "13.5.7.9"),
    ("2400:3200:baba::1 登录", "ip", "2400:3200:baba::1"),
    ("via 2a00:1450:4001:81b::200e now", "ip", "2a00:1450:4001:81b::200e"),
    # plates
    ("京A12345被贴条", "plate", "京A12345"),
    ("沪C·88G21", "plate", "沪C·88G21"),
    ("粤BD12345是电车", "plate", "粤BD12345"),
    ("川A1234学", "plate", "川A1234学"),
    # passports and social security numbers
    ("护照号码：E12345678", "passport", "E12345678"),
    ("护照 EA1234567 已签发", "passport", "EA1234567"),
    ("Passport No. 512345678", "passport", "512345678"),
    ("her passport number is G12345678", "passport", "G12345678"),
    ("My SSN is 123-45-6789.", "ssn", "123-45-6789"),
    ("social security number: 078-05-1120", "ssn", "078-05-1120"),
    # addresses
    ("北京市海淀区中关村大街27号3号楼502室", "address", "北京市海淀区中关村大街27号3号楼502室"),
    ("家住上海市浦东新区世纪大道100号", "address", "上海市浦东新区世纪大道100号"),
    ("请寄到广东省深圳市南山区科技南路16号2栋1单元301室，谢谢", "address", None),
    ("+86 10 6275 1234", "phone", "+86 10 6275 1234"),
    ("卡号6222021234567890128，请核对", "bank_card", "6222021234567890128"),
    ("地址：杭州市西湖区文三路478号", "address", "杭州市西湖区文三路478号"),
    ("123 Main Street, Apt 4B, Springfield, IL 62704", "address", None),
    ("ship to 1600 Amphitheatre Way, Mountain View, CA 94043 now", "address", None),
]

NEGATIVE = [
    # decimals, amounts, counts
    "圆周率3.14159265358979",
    "数值为13800138000.55",
    "0.13800138000",
    "共13800138000元",
    "市值 15000000000 美元",
    "浏览量13912345678次",
    "$13800138000",
    "约 18600000000 人次",
    "accuracy 0.4111111111111111",
    "1,380,013,800",
    "13,800,138,000 bytes",
    "准确率 98.7654321012%",
    # what it is called
    "订单号13812345678",
    "订单编号：20240514000123456789",
    "快递单号 13912345678",
    "Order 13812345678 has shipped",
    "tracking number: 18612345678",
    "serial no. 15912345678",
    "商品条码6901234567892",
    "流水号6222021234567890128",
    "invoice #4012888888881881",
    "QQ：13812345678",
    # books and articles
    "ISBN 978-7-111-40701-0",
    "ISBN 9787111407010",
    "ISBN-10: 0-13-110362-8",
    "ISSN 1000-9825",
    "doi:10.1145/3292500.3330701",
    "arXiv:2112.11446",
    # dates and times
    "2024-05-14 10:30:25",
    "20240514",
    "20240514103025",
    "时间戳1715653825123",
    "1715653825",
    "12/05/2024 08:15",
    "2024.05.14-2024.06.30",
    "1949年10月1日至2024年10月1日",
    "From 1980-1990-2000",
    # versions and sections
    "版本1.2.3.4",
    "v10.2.33.40",
    "Chrome/99.0.48.51 Safari",
    "version 16.0.42.66",
    "升级到 3.10.0.1",
    "第1.2.3.4节",
    "torch==2.1.0.255",
    "1.2.3.4.5.6",
    "256.300.1.1",
    # hosts of nobody
    "127.0.0.1:8000",
    "ping 192.168.1.100",
    "10.0.0.8",
    "dns 8.8.8.8",
    "203.0.113.7",
    "std::vector::iterator",
    "2001:db8::1",
    "12:30:45:50",
    # checksums, regions and dates that cannot be
    "110105194912310021",
    "11010519491331002X",
    "99010519491231002X",
    "6222020000000000001",
    "4012888888881882",
    "1234567812345670",
    "0000000000000000",
    "00000000000",
    "12345678901",
    "14012345678",
    "uuid 550e8400-e29b-41d4-a716-446655440000",
    "sha 4012888888881881ab",
    "id_13800138000_x",
    "a13800138000",
    # phones of nobody
    "客服电话：400-810-8888",
    "(415) 555-0132",
    "1-800-273-8255",
    "212 736 5000 rows",
    "12345热线",
    "+12345678",
    "x=3+12345678901234",
    "x=-3.13800138000",
    # e-mail-like
    "user@example.com",
    "react@18.2.0",
    "logo@2x.png",
    "@张三 你好",
    "git@github.com:a/b.git",
    "noreply@github.com",
    "a@b",
    "x @ y.com",
    # plates, passports, addresses that are none
    "京A",
    "新A股12345只",
    "京I12345",
    "型号E12345678",
    "Part G12345678",
    "part number 123-45-6789",
    "中山路",
    "南京路1号",
    "地铁2号线",
    "第27号文件",
    "Main Street is long",
    "5 Main Street",
    # secrets that are none
    "sk-learn is scikit-learn",
    "hf_hub_download(repo)",
    "ftp://username:password@ftp.corp.com",
    "https://docs.python.org/3/library/re.html",
    "-----",
]


@pytest.mark.parametrize(("text", "kind", "value"), POSITIVE)
def test_found(text: str, kind: str, value: str | None) -> None:
    found = [(each.kind, text[each.start : each.end]) for each in pii.find(text)]
    assert (kind, value) in found if value else kind in [kind for kind, _ in found], found


@pytest.mark.parametrize("text", NEGATIVE)
def test_not_found(text: str) -> None:
    assert pii.find(text) == []


def test_enough_cases() -> None:
    assert len(POSITIVE) >= 60 and len(NEGATIVE) >= 60


def test_every_shape_of_a_secret_is_reached() -> None:
    """The cheap look before the shapes lets one of each kind through."""
    samples = {
        "a Hugging Face token": "hf_" + "a" * 30,
        "a ModelScope token": "ms-01234567-0123-0123-0123-0123456789ab",
        "an API key": "AIza" + "a" * 35,
        "a GitHub token": "glpat-" + "a" * 20,
        "an AWS key": "ASIA" + "A" * 16,
        "a chat token": "xoxb-" + "1" * 10,
        "a signed token": "eyJ" + "a" * 8 + ".eyJ" + "b" * 8,
        "a private key": "-----BEGIN PRIVATE KEY-----\nab\n-----END PRIVATE KEY-----",
        "a password in a URL": "ftp://me:pw@host",
    }
    assert set(samples) == set(SHAPES)
    for kind, sample in samples.items():
        assert [found.kind for found in pii.find(sample)] == ["secret"], kind


def test_checksums() -> None:
    assert fakes.id_card_digit("11010519491231002") == "X"
    assert fakes.id_card_digit("44052418800101001") == "4"
    assert pii.luhn("4012888888881881") and not pii.luhn("4012888888881882")


def test_mask_and_undo() -> None:
    text = "张三，13800138000，a.b@qq.com"
    masked, changes = pii.mask(text)
    assert masked == "张三，[PHONE]，[EMAIL]"
    assert revert(masked, changes) == text
    assert pii.mask(text, kinds=["email"])[0] == "张三，13800138000，[EMAIL]"


def test_report_does_not_tell_the_value() -> None:
    for text, _, value in POSITIVE:
        for found in pii.find(text):
            real = text[found.start : found.end]
            assert real not in found.shown and len(found.shown) <= len(real) + 3, value


@pytest.mark.parametrize(("text", "kind", "value"), POSITIVE)
def test_fakes_are_consistent_and_nobodys(text: str, kind: str, value: str | None) -> None:
    new, changes = pii.pseudonymise(text, "key")
    assert changes and new == pii.pseudonymise(text, "key")[0]
    assert pii.find(new) == [], new
    assert revert(new, changes) == text
    if kind != "secret":
        assert new != pii.pseudonymise(text, "another key")[0]


def test_fakes_keep_layout_and_checksum() -> None:
    new, _ = pii.pseudonymise("A 13800138000 B 138-0013-8000 C +8613800138000", "k")
    one, two, three = new[2:13], new[16:29], new[35:]
    assert one == two.replace("-", "") == three and one.startswith("154")
    card = fakes.fake("bank_card", "4012 8888 8888 1881", "k")
    assert pii.luhn(card.replace(" ", "")) and [len(part) for part in card.split()] == [4, 4, 4, 4]
    person = fakes.fake("id_card", "11010519491231002X", "k")
    assert fakes.id_card_digit(person[:17]) == person[17] and person.startswith("99")


def test_another_finder_adds_and_does_not_override() -> None:
    text = "张三 13800138000"
    names = lambda _: [Span("name", 0, 2, "张*"), Span("number", 3, 14, "…")]  # noqa: E731
    assert [found.kind for found in pii.find(text, also=names)] == ["name", "phone"]
    assert pii.mask(text, also=names)[0] == "[NAME] [PHONE]"


def test_unknown_kind() -> None:
    with pytest.raises(UsageError, match="emial"):
        pii.find("x", kinds=["emial"])


def test_spans_in_any_order_are_laid_apart() -> None:
    """As if each were compared with all that stand already."""
    rng = random.Random(3)
    for _ in range(300):
        new = []
        for _ in range(rng.randrange(12)):
            start = rng.randrange(40)
            new.append(Span("name", start, start + rng.randrange(1, 9), "x"))
        plain: list[Span] = []
        for span in new:
            if all(span.end <= other.start or other.end <= span.start for other in plain):
                plain.append(span)
        half = len(new) // 2
        assert pii._apart(pii._apart([], new[:half]), new[half:]) == sorted(plain, key=lambda one: one.start)


def test_very_many_in_one_text_end() -> None:
    text = "mail a.b@mail-host.cn or call 13812345678, " * 20_000
    began = time.process_time()
    assert len(pii.find(text)) == 40_000
    assert time.process_time() - began < 20  # compared with each other they would take minutes
